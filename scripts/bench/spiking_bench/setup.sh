#!/usr/bin/env bash
# Makes the environments of the spiking peers, since their pins clash: MODICUM_PEERS/peers-NAME, beside the checkout in
# ../env by default. One that fails leaves the other, and ends in one line.
#   scripts/bench/spiking_bench/setup.sh [torch-snn] [spyx]
set -uo pipefail
cd "$(dirname "$0")/../../.."
source scripts/bench/peers/environment.sh

# Pins are those that the published figures were measured with.
packages_of() {
  case $1 in
    # where no local file of this release lies, PyPI's is a build for GPUs of some gigabytes
    torch-snn) echo torch==2.13.0 numpy spikingjelly==2.0.0 snntorch==1.0.0 ;;
    # the JAX that ours runs on
    spyx) echo jax==0.12.0.1 spyx==1.0.0 optax==0.2.8 numpy ;;
    *) return 1 ;;
  esac
}

# The local file of torch is for Python 3.11; JAX 0.12 needs 3.12 or newer.
minors_of() {
  case $1 in
    torch-snn) echo 11 ;;
    *) echo 13 12 14 ;;
  esac
}

peer() {
  local packages python="" minor
  packages=$(packages_of "$1") || {
    echo "peers: $1 must be torch-snn or spyx" >&2
    return 1
  }
  for minor in $(minors_of "$1"); do
    python=$(modicum_python "$minor") && break
  done
  peer_environment "$1" "$python" "$packages" "Python 3.$(minors_of "$1" | sed 's/ / or 3./g')"
}

[ $# -gt 0 ] || set -- torch-snn spyx
failed=0
for name in "$@"; do
  peer "$name" || failed=1
done
exit $failed
