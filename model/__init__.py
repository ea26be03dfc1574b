"""Values and rules that every layer shares.

Nothing in here awaits, reads a clock or does I/O.
"""
