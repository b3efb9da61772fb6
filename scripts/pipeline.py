"""`python scripts/pipeline.py ...` is `modicum pipeline ...`: several systems in a row."""

import sys

from modicum.cli.pipeline import main

if __name__ == "__main__":
    sys.exit(main())
