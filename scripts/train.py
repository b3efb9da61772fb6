"""`python scripts/train.py ...` is `modicum train ...`: train and test a model."""

import sys

from modicum.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
