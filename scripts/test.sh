#!/usr/bin/env bash
# Runs the tests in an environment of their own (.venv-test), with the peers they compare against.
#   scripts/test.sh [pytest arguments]
# Environment: MODICUM_DATA (folder of real data), MODICUM_PYTHON_MINOR (11, 12, ...: which Python to take),
# MODICUM_EXTRAS ('[federated,flower]': other extras, in an environment of their own).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
minor=${MODICUM_PYTHON_MINOR:-any}
folder=.venv-test
[ "$minor" = any ] || folder=.venv-test-$minor
extras='[attestation,conference,docs,federated,interchange,iree,native,nir,notebooks,peers,tensorboard,dev]'
# On 3.11 CI runs the smoke tests alone, which need no second compiler.
[ "$minor" = 11 ] && extras='[peers]'
if [ -n "${MODICUM_EXTRAS:-}" ]; then
  extras=$MODICUM_EXTRAS
  folder=$folder-$(tr -cd a-z <<<"$extras")
fi
modicum_environment "$folder" "$extras" "$minor"
if [ -z "${MODICUM_DATA:-}" ] && [ -d ../shared/data/tfds ]; then
  export MODICUM_DATA="$PWD/../shared/data"
fi
[ $# -gt 0 ] || set -- -n 2 --dist worksteal
exec "$folder/bin/python" -m pytest -q "$@"
