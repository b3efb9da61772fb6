"""`python -m modicum` is `modicum`."""

import sys

from modicum.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
