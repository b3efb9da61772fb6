# Sourced by the scripts that make environments of peers, from the root of the checkout.
source scripts/setup.sh
peers_root=${MODICUM_PEERS:-$PWD/../env}

# peer_environment NAME PYTHON PACKAGES [NEEDS]: MODICUM_PEERS/peers-NAME, beside the checkout in ../env by
# default; reused when its packages are those asked for. One that fails is left out, in one line.
peer_environment() {
  local name=$1 python=$2 packages=$3 folder=$peers_root/peers-$1
  if [ "$(cat "$folder/modicum-stamp" 2>/dev/null)" = "$packages" ]; then
    echo "peers: $name is ready in $folder"
    return 0
  fi
  if [ -z "$python" ]; then
    echo "peers: $name is left out, it needs ${4:-Python}" >&2
    return 1
  fi
  rm -rf "$folder"
  # $packages is a list of words
  # shellcheck disable=SC2086
  if mkdir -p "$peers_root" && "$python" -m venv "$folder" &&
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $packages >"$folder/install.log" 2>&1; then
    echo "$packages" >"$folder/modicum-stamp"
    echo "peers: $name is ready in $folder"
  else
    echo "peers: $name is left out, its packages do not install (see $folder/install.log)" >&2
    return 1
  fi
}
