"""Delivering failed records again: reading failure documents, planning, and the destinations they are read from."""
