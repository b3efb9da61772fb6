#!/usr/bin/env bash
# Makes the environments of the spiking peers, since their pins clash: MODICUM_PEERS/peers-NAME, beside the checkout in
# ../env by default. One that fails leaves the other, and ends in one line.
#   scripts/bench/spiking_bench/setup.sh [torch-snn] [spyx]
set -uo pipefail
cd "$(dirname "$0")/../../.."
source scripts/setup.sh
root=${MODICUM_PEERS:-$PWD/../env}

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

# peer NAME: reused when its packages are those asked for.
peer() {
  local name=$1 folder=$root/peers-$1 packages python="" minor
  packages=$(packages_of "$name") || {
    echo "peers: $name must be torch-snn or spyx" >&2
    return 1
  }
  if [ "$(cat "$folder/modicum-stamp" 2>/dev/null)" = "$packages" ]; then
    echo "peers: $name is ready in $folder"
    return 0
  fi
  for minor in $(minors_of "$name"); do
    python=$(modicum_python "$minor") && break
  done
  if [ -z "$python" ]; then
    echo "peers: $name is left out, it needs Python 3.$(minors_of "$name" | sed 's/ / or 3./g')" >&2
    return 1
  fi
  rm -rf "$folder"
  # $packages is a list of words
  # shellcheck disable=SC2086
  if mkdir -p "$root" && "$python" -m venv "$folder" &&
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $packages >"$folder/install.log" 2>&1; then
    echo "$packages" >"$folder/modicum-stamp"
    echo "peers: $name is ready in $folder"
  else
    echo "peers: $name is left out, its packages do not install (see $folder/install.log)" >&2
    return 1
  fi
}

[ $# -gt 0 ] || set -- torch-snn spyx
failed=0
for name in "$@"; do
  peer "$name" || failed=1
done
exit $failed
