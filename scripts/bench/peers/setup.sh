#!/usr/bin/env bash
# Makes an environment for each group of engines, since their pins clash: MODICUM_PEERS/peers-NAME, beside the checkout
# in ../env by default. One that fails leaves the others, and ends in one line.
#   scripts/bench/peers/setup.sh [onnx] [litert] [mnn] [ncnn] [torch] [deepsparse]
# XLA and IREE run in the project's own environment (pip install modicum[iree]).
set -uo pipefail
cd "$(dirname "$0")/../../.."
source scripts/bench/peers/environment.sh

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

peer() {
  local packages
  packages=$(packages_of "$1") || {
    echo "peers: $1 must be one of onnx, litert, mnn, ncnn, torch, deepsparse" >&2
    return 1
  }
  peer_environment "$1" "$python" "$packages"
}

if ! python=$(modicum_python 11); then
  echo "peers: no working Python 3.11 was found, which DeepSparse and LiteRT's converter need" >&2
  exit 1
fi
[ $# -gt 0 ] || set -- onnx litert mnn ncnn torch deepsparse
failed=0
for name in "$@"; do
  peer "$name" || failed=1
done
exit $failed
