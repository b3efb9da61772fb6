# Sourced by quickstart.sh, test.sh and .ci/run: finds a Python, makes an environment in it, installs.
# No executable of its own.

# Prints every interpreter worth trying, newest first. A python3.12 on the PATH may be a version manager's shim
# that fails when run, so each is tried before it is believed.
modicum_interpreters() {
  local version folder
  for version in 3.14 3.13 3.12 3.11; do
    command -v "python$version" || true
    for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version"* \
      "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$version"*; do
      [ -x "$folder/bin/python3" ] && echo "$folder/bin/python3"
    done
  done
  command -v python3 || true
}

# modicum_python [MINOR]: the first interpreter that really runs, is 3.11 to 3.14 (or exactly 3.MINOR) and has venv.
modicum_python() {
  local wanted=${1:-any} candidate
  while read -r candidate; do
    if "$candidate" - "$wanted" >/dev/null 2>&1 <<'PYTHON'
import ensurepip, ssl, sys, venv
minor = sys.version_info.minor
wanted = sys.argv[1]
sys.exit(not (sys.version_info.major == 3 and 11 <= minor <= 14 and wanted in ("any", str(minor))))
PYTHON
    then
      echo "$candidate"
      return 0
    fi
  done < <(modicum_interpreters)
  return 1
}

# modicum_environment FOLDER EXTRAS [MINOR]: an environment with this checkout installed; reused when nothing changed.
modicum_environment() {
  local folder=$1 extras=$2 minor=${3:-any} python stamp
  stamp="$extras $minor $(cat requirements.txt pyproject.toml | cksum)"
  if [ -x "$folder/bin/python" ] && [ "$(cat "$folder/modicum-stamp" 2>/dev/null)" = "$stamp" ]; then
    return 0
  fi
  if ! python=$(modicum_python "$minor"); then
    echo "modicum: no working Python 3.11 or newer was found (tried the PATH, pyenv and uv); please install one" >&2
    return 1
  fi
  echo "modicum: setting up $folder with $("$python" --version) ($python)"
  rm -rf "$folder"
  "$python" -m venv "$folder" &&
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip &&
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".$extras" &&
    echo "$stamp" >"$folder/modicum-stamp"
}
