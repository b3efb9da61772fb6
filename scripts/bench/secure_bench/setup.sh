#!/usr/bin/env bash
# Makes the environments of the peers of secure sums, since Flower's pins are narrow: MODICUM_PEERS/peers-NAME, beside
# the checkout in ../env by default. One that fails leaves the other, and ends in one line.
#   scripts/bench/secure_bench/setup.sh [flower] [secure]
set -uo pipefail
cd "$(dirname "$0")/../../.."
source scripts/bench/peers/environment.sh

# Pins are those that the published figures were measured with.
packages_of() {
  case $1 in
    # with ours beside it: the federated tests and scripts/federate.py --engine flower run in it, too
    flower) echo "--editable=$PWD[federated]" "flwr[simulation]==1.42.0" pytest ;;
    secure) echo tenseal==0.3.18 phe==1.5.0 gmpy2==2.3.2 numpy ;;
    *) return 1 ;;
  esac
}

[ $# -gt 0 ] || set -- flower secure
failed=0
for name in "$@"; do
  packages=$(packages_of "$name") || {
    echo "peers: $name must be flower or secure" >&2
    failed=1
    continue
  }
  peer_environment "$name" "$(modicum_python 13 || modicum_python 12)" "$packages" "Python 3.12 or newer" || failed=1
done
exit $failed
