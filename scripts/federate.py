"""`python scripts/federate.py ...` is `modicum federate ...`: train over clients that do not show their data."""

import sys

from modicum.cli.federate import main

if __name__ == "__main__":
    sys.exit(main())
