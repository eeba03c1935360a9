#!/usr/bin/env bash
# The README's commands with every Python from 3.10 to 3.12 that is here, to the first answers.
#   tools/test_pythons.sh [3.10 ...]
set -euo pipefail
cd "$(dirname "$0")/.."
unset ROS_DISTRO AMENT_PREFIX_PATH PYTHONPATH

find() { # find VERSION: the interpreter's path, from PATH or pyenv
  local python
  for python in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null &&
      echo "$python" && return
  done
}

tried=0
for version in ${*:-3.10 3.11 3.12}; do
  python=$(find "$version" || true)
  [ -n "$python" ] || { echo "Python $version is not here" && continue; }
  checkout=$(mktemp -d)
  trap 'rm -rf "$checkout"' EXIT
  git ls-files -co --exclude-standard | tar c --ignore-failed-read -T - | tar x -C "$checkout"
  (
    cd "$checkout"
    "$python" -m venv .pins # every pinned version exists for this Python, and none contradicts another
    .pins/bin/pip install -q --disable-pip-version-check --dry-run \
      -r tools/requirements.txt -r tools/requirements-jazzy.txt
    PYTHON=$python make demo FRAMES=30 | tee demo.log
    grep -q '^30 of 30 frames' demo.log
    # Its lines of Python, in the same environment; the others of its commands need a sourced ROS 2.
    . tools/env.sh jazzy
    repghost signs signs >/dev/null
    sed -n '/^```python$/,/^```$/{/^```/!p}' README.md >example.py
    python example.py | tee example.log
    grep -q '%  stop$' example.log
  )
  rm -rf "$checkout"
  tried=$((tried + 1))
done
[ "$tried" -gt 0 ] || { echo "no Python from 3.10 to 3.12 is here" >&2 && exit 1; }
