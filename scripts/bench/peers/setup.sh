#!/usr/bin/env bash
# Makes an environment for each group of engines, since their pins clash: MODICUM_PEERS/peers-NAME, beside the checkout
# in ../env by default. One that fails leaves the others, and ends in one line.
#   scripts/bench/peers/setup.sh [onnx] [litert] [mnn] [ncnn] [torch] [deepsparse]
# XLA and IREE run in the project's own environment (pip install modicum[iree]).
set -uo pipefail
cd "$(dirname "$0")/../../.."
source scripts/setup.sh
root=${MODICUM_PEERS:-$PWD/../env}

# Pins are those that the published figures were measured with.
packages_of() {
  case $1 in
    onnx) echo onnxruntime==1.32.0 openvino==2026.4.1 onnx numpy ;;
    litert) echo ai-edge-litert==2.3.0 tensorflow-cpu==2.21.0 ;;
    mnn) echo MNN==3.6.1 numpy ;;
    # pnnx asks for torch, but its program runs without
    ncnn) echo --no-deps ncnn==1.0.20261020 pnnx==20261020 numpy ;;
    # where no local file of this release lies, PyPI's is a build for GPUs of some gigabytes
    torch) echo torch==2.13.0 numpy ;;
    # 1.9.0 is source only and does not build; the license allows development and testing only
    deepsparse) echo --only-binary :all: deepsparse==1.8.0 ;;
    *) return 1 ;;
  esac
}

# peer NAME PYTHON: reused when its packages are those asked for.
peer() {
  local name=$1 python=$2 folder=$root/peers-$1 packages
  packages=$(packages_of "$name") || {
    echo "peers: $name must be one of onnx, litert, mnn, ncnn, torch, deepsparse" >&2
    return 1
  }
  if [ "$(cat "$folder/modicum-stamp" 2>/dev/null)" = "$packages" ]; then
    echo "peers: $name is ready in $folder"
    return 0
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

if ! python=$(modicum_python 11); then
  echo "peers: no working Python 3.11 was found, which DeepSparse and LiteRT's converter need" >&2
  exit 1
fi
[ $# -gt 0 ] || set -- onnx litert mnn ncnn torch deepsparse
failed=0
for name in "$@"; do
  peer "$name" "$python" || failed=1
done
exit $failed
