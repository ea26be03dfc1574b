"""Configuration files become settings here, and only here."""
