"""`python scripts/compress.py ...` is `modicum compress ...`: compress a network by a recipe."""

import sys

from modicum.cli.compress import main

if __name__ == "__main__":
    sys.exit(main())
