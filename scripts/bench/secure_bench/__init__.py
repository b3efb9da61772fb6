"""Parts of scripts/bench/secure_sum.py; peers run in environments of their own (setup.sh)."""
