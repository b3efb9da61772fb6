"""`python scripts/call.py ...` is `modicum call ...`: video calls by face motion."""

import sys

from modicum.cli.call import main

if __name__ == "__main__":
    sys.exit(main())
