#!/usr/bin/env bash
# What users get: `pip install .[pc]` into a fresh environment, the newest of everything, without ROS.
# Tried there: five lines of Python, and the tests of the command against the installed package.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset ROS_DISTRO AMENT_PREFIX_PATH PYTHONPATH
"${PYTHON:-python3}" -m venv "$scratch/venv"
python=$scratch/venv/bin/python
mkdir "$scratch/checkout"
git ls-files -co --exclude-standard | tar c --ignore-failed-read -T - | tar x -C "$scratch/checkout"
cd "$scratch/checkout"
"$python" -m pip install -q --disable-pip-version-check ".[pc]" pytest pytest-timeout hypothesis
rm -rf repghost_ros build ./*.egg-info # the tests take the package from the environment
export REPGHOST_HOME=$scratch/store PATH=$scratch/venv/bin:$PATH

repghost signs signs >/dev/null
"$python" - <<'PYTHON'
import cv2
import repghost_ros
from repghost_ros.native import library

assert library(), "the compiled helper was not built"
with repghost_ros.open_model("demo") as model:
    best, *_ = model.classify(cv2.imread("signs/stop/0.png"))
print(f"{best.class_id} {best.score:.1%}, OpenCV {cv2.__version__}, {repghost_ros.__file__}")
assert best.class_id == "stop"
assert repghost_ros.__file__.startswith(__import__("sys").prefix)
PYTHON
repghost doctor
tests="${*:-cli eval bench replay pages overlay store frame nv12 results}"
"$python" -m pytest -q -p no:cacheprovider $(printf 'test/test_%s.py ' $tests)
