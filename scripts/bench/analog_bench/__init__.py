"""Parts of scripts/bench/analog.py, and the tables of analog results."""
