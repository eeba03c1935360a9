# SPDX-License-Identifier: Apache-2.0
"""`make demo REGIONS=1`: a street whose signs are classified box by box."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2


def test_the_demo_names_every_box(tmp_path: Path) -> None:
    picture = tmp_path / "street.png"
    command = [sys.executable, "-m", "repghost_ros.demo", "--regions", "--frames", "20"]
    command += ["--fps", "10", "--picture", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "boxes classified correctly (100.0%)" in done.stdout
    assert cv2.imread(str(picture)).shape == (160, 640, 3)
