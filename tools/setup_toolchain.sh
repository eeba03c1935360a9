#!/usr/bin/env bash
# Install the vendor's PC toolchain from PyPI into .venv-toolchain; with --check only say whether it can be.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-toolchain requirements=tools/requirements-toolchain.txt
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "the vendor's toolchain exists for x86-64 Linux only, this is $(uname -sm)"
  exit 1
fi
if ! python3.10 -c 'import ensurepip, venv' 2>/dev/null; then
  echo "the vendor's toolchain needs Python 3.10 with venv (apt install python3.10-venv), which is not here"
  exit 1
fi
[ "${1:-}" != --check ] || exit 0
# Whole or not at all: the list that was installed is what marks a finished one.
cmp -s "$requirements" "$venv/installed.txt" && exit 0
rm -rf "$venv"
python3.10 -m venv "$venv"
"$venv/bin/pip" install -qq --no-deps -r "$requirements"
cp "$requirements" "$venv/installed.txt"
"$venv/bin/hbdk-cc" --version | grep '^version'
