#!/usr/bin/env bash
# Print the Python that `make` uses: $PYTHON, the newest that fits, or the one of the sourced ROS 2.
set -euo pipefail

fits='import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))'
candidates=${PYTHON:-python3.12 python3.11 python3.10 python3}
missing="Python 3.10, 3.11 or 3.12 - install it with: sudo apt-get install -y python3"
if [ -n "${ROS_DISTRO:-}" ]; then
  # A newer Python beside it has no rclpy, and PyPI's would not match the sourced libraries.
  fits="import rclpy; $fits"
  candidates=${PYTHON:-python3 python3.12 python3.11 python3.10}
  missing="a Python of 3.10 to 3.12 that imports rclpy of the sourced ROS 2 $ROS_DISTRO - set PYTHON to it, \
or use a shell in which no ROS 2 is sourced"
fi
for python in $candidates; do
  if "$python" -c "$fits" 2>/dev/null; then
    echo "$python"
    exit
  fi
done
echo "missing: $missing" >&2
exit 1
