#!/usr/bin/env bash
# Install the vendor's PC toolchain into .venv-toolchain; a second run takes a second.
# With --check only say whether this machine can have it.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-toolchain
stamp=$venv/.stamp
wanted=$(cat tools/setup_toolchain.sh tools/requirements-toolchain.txt | sha256sum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
  echo "the vendor's toolchain is for x86-64 Linux, this is $(uname -s) on $(uname -m)" >&2
  exit 1
fi

find_python() { # a Python 3.10 that can make environments: on PATH, or one that pyenv or uv keeps
  local python
  for python in ${PYTHON:-python3.10 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python \
    "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/cpython-3.10.*-linux-x86_64-gnu/bin/python3.10}; do
    if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "missing: Python 3.10 with venv, the only one that the vendor's toolchain runs with - install it with:" \
    "sudo apt-get install -y python3.10-venv (Ubuntu 22.04), pyenv install 3.10, or uv python install 3.10;" \
    "PYTHON=... names another one" >&2
  exit 1
}

python=$(find_python)
[ "${1:-}" != --check ] || exit 0
needed=4000000 # KB, while pip unpacks
free=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ "$free" -lt "$needed" ]; then
  echo "the vendor's toolchain needs $((needed / 1000)) MB on this disk, $((free / 1000)) MB are free" >&2
  exit 1
fi
echo "installing the vendor's toolchain (2.7 GB) into $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"
"$venv/bin/pip" install -qq --disable-pip-version-check --no-deps -r tools/requirements-toolchain.txt
"$venv/bin/hbdk-cc" --version | head -1
echo "$wanted" >"$stamp"
