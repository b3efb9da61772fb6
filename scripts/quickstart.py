"""`python scripts/quickstart.py ...` is `modicum quickstart ...`: the main job; `scripts/quickstart.sh` calls this."""

import sys

from modicum.cli.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
