"""Makes the pages of `docs/reference` out of the code: `python -m docs.making` writes them, `make docs` does it first.

They are committed, so that a forge shows them too; a test says when they are behind.
"""
