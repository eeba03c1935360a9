#!/usr/bin/env bash
# Fail where the tests ran a smaller share of lines and branches than these, of the package and of the
# rooms in which most defects were found.
set -euo pipefail
cd "$(dirname "$0")/.."

coverage combine -q
floor() { # floor FILES PERCENT
  local share
  share=$(coverage report --format=total --precision=1 --include="$1") || true
  printf '%-26s %5s %% of lines and branches, at least %s\n' "$1" "$share" "$2"
  coverage report --include="$1" --fail-under="$2" >/dev/null
}
floor 'repghost_ros/*' 86
floor 'repghost_ros/runs/*' 90
floor 'repghost_ros/cli/*' 87
floor 'repghost_ros/zoo/*' 95
