"""`python scripts/export.py ...` is `modicum export ...`: compress, compile and write a bundle."""

import sys

from modicum.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
