"""`python -m node` is `esmd`."""

from node.cli import main

if __name__ == "__main__":
    main()
