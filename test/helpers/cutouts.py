# SPDX-License-Identifier: Apache-2.0
"""Photographs of objects on backgrounds: cut-outs and wallpapers of Debian packages, none committed.

The cut-outs are those of tuxpaint-stamps-default, the backgrounds those of four packages of wallpapers.
They are downloaded with apt-get into REPGHOST_TEST_DATA, or else a folder of the temporary directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np

_PACKAGES = (
    "tuxpaint-stamps-default",
    *("mate-backgrounds", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "ukui-wallpapers"),
)
KINDS = {
    "bird": "animals/birds",
    "flower": "plants/flowers",
    "fruit": "food/fruit",
    "mammal": "animals/mammals",
    "vehicle": "vehicles",
}
"""Folders of cut-outs; every cut-out shows another object."""
TOOLS = ("hammer", "saw", "plyers", "wrench_adjustable", "measuring_tape")
"""Cut-outs of one object each."""
WIDTH, HEIGHT = 320, 240


@cache
def data() -> Path | str:
    """Return the unpacked packages, or why there are none."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return "apt-get and dpkg are not installed"
    default = Path(tempfile.gettempdir(), "repghost_test_data")
    root = Path(os.environ.get("REPGHOST_TEST_DATA", default))
    if not (root / "complete").is_file():
        root.mkdir(parents=True, exist_ok=True)
        got = subprocess.run(
            ["apt-get", "download", *_PACKAGES], cwd=root, capture_output=True, text=True
        )
        if got.returncode:
            return f"apt-get cannot download {', '.join(_PACKAGES)}: {got.stderr.strip()}"
        for package in root.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
            package.unlink()
        (root / "complete").touch()
    return root / "usr" / "share"


def _cut(path: Path) -> np.ndarray | None:
    """Read the object with its transparency: BGRA, cut at its edges; None for pictures without."""
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if read is None or read.ndim != 3 or read.shape[2] != 4 or read.dtype != np.uint8:
        return None
    rows, columns = np.nonzero(read[..., 3] > 20)
    return read[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def objects(root: Path, kind: str) -> list[np.ndarray]:
    """Read the photographed objects of a kind."""
    found = sorted((root / "tuxpaint" / "stamps" / KINDS[kind]).rglob("*.png"))
    found = [p for p in found if "cartoon" not in p.parts and not p.stem.endswith("_mirror")]
    return [cut for cut in map(_cut, found) if cut is not None]


def tool(root: Path, name: str) -> np.ndarray:
    """One of TOOLS."""
    cut = _cut(root / "tuxpaint" / "stamps" / "household" / "tools" / f"{name}.png")
    assert cut is not None
    return cut


def backgrounds(root: Path) -> list[np.ndarray]:
    """Read the wallpapers that are photographs, BGR, 900 pixels at most."""
    folder = root / "backgrounds"
    made = []
    for path in (
        *sorted(folder.glob("*.jpg")),
        *sorted((folder / "mate" / "nature").glob("*.jpg")),
    ):
        read = cv2.imread(str(path))
        assert read is not None
        scale = 900 / max(read.shape[:2])
        made.append(cv2.resize(read, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return made


def scene(walls: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Draw a part of one of the backgrounds, HEIGHT x WIDTH."""
    wall = walls[random.integers(len(walls))]
    scale = random.uniform(0.6, 1.0) * min(wall.shape[0] / HEIGHT, wall.shape[1] / WIDTH)
    height, width = int(HEIGHT * scale), int(WIDTH * scale)
    y = random.integers(wall.shape[0] - height + 1)
    x = random.integers(wall.shape[1] - width + 1)
    part = wall[y : y + height, x : x + width]
    return cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def paste(
    cut: np.ndarray, onto: np.ndarray, random: np.random.Generator, size: tuple[float, float]
) -> np.ndarray:
    """Paste the object, its longer side that share of the height, turned a little."""
    long = random.uniform(*size) * HEIGHT
    scale = min(long / max(cut.shape[:2]), 0.95 * HEIGHT / cut.shape[0])
    small = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-15, 15), 1)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    across, down = int(height * sin + width * cos) + 1, int(height * cos + width * sin) + 1
    turn[0, 2] += across / 2 - width / 2
    turn[1, 2] += down / 2 - height / 2
    turned = cv2.warpAffine(small, turn, (across, down))[:HEIGHT, :WIDTH]
    down, across = turned.shape[:2]
    y, x = random.integers(HEIGHT - down + 1), random.integers(WIDTH - across + 1)
    opaque = turned[..., 3:].astype(np.float32) / 255
    made = onto.copy()
    part = made[y : y + down, x : x + across]
    part[...] = (opaque * turned[..., :3] + (1 - opaque) * part + 0.5).astype(np.uint8)
    return made
