"""The programs in examples/, run as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from repghost_ros.demo.signs import render

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_classify(tmp_path: Path) -> None:
    sign = tmp_path / "sign.png"
    cv2.imwrite(str(sign), render("yield", np.random.default_rng(3), 320, 240))
    first = run("classify.py", str(sign)).splitlines()[0]
    assert first.endswith("% yield")
