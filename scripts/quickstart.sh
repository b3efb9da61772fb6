#!/usr/bin/env bash
# From a fresh machine to a compressed, exported and simulated network: sets up .venv and runs the main job.
#   scripts/quickstart.sh [--data digits|mnist|...] [--run FOLDER] [--fresh] [key=value ...]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
modicum_environment .venv ""
exec .venv/bin/python scripts/quickstart.py "$@"
