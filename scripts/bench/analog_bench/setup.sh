#!/usr/bin/env bash
# Makes the environments of the analog peers: MODICUM_PEERS/peers-NAME, beside the checkout in ../env by default. One
# that fails leaves the other, and ends in one line.
#   scripts/bench/analog_bench/setup.sh [lightning] [aihwkit]
# CrossSim is no package: bench/analog.py takes the checkout that --cross-sim names (github.com/sandialabs/cross-sim)
# and runs it in the environment of lightning.
set -uo pipefail
cd "$(dirname "$0")/../../.."
source scripts/bench/peers/environment.sh

# Pins are those that the published figures were measured with.
peer() {
  case $1 in
    # the local file of torch is for Python 3.11
    lightning) peer_environment lightning "$(modicum_python 11)" \
      "torch==2.13.0 numpy scipy aihwkit-lightning==2.1.0" "Python 3.11" ;;
    # wheels of 1.2.0 are for 3.12 and 3.13; its torch is PyPI's, a build for GPUs of some gigabytes
    aihwkit) peer_environment aihwkit "$(modicum_python 13)" "aihwkit==1.2.0" "Python 3.13" ;;
    *)
      echo "peers: $1 must be lightning or aihwkit" >&2
      return 1
      ;;
  esac
}

[ $# -gt 0 ] || set -- lightning aihwkit
failed=0
for name in "$@"; do
  peer "$name" || failed=1
done
exit $failed
