"""`python scripts/simulate.py ...` is `modicum simulate ...`: a network on simulated chips."""

import sys

from modicum.cli.simulate import main

if __name__ == "__main__":
    sys.exit(main())
