"""A peer: see its README."""
