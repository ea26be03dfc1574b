"""The demo's functions, and what they are made of. In a sandbox this package is a root: it knows nothing of a node."""
