# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures for the tests, a subfolder a class, drawn by the renderer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from repghost_ros.sources.signs import LABELS, render


def sign_folder(folder: Path, seed: int, per_class: int) -> Path:
    """Pictures of every sign; those of different classes have the same names."""
    for index, label in enumerate(LABELS):
        (folder / label).mkdir()
        for number in range(per_class):
            picture = render(label, np.random.default_rng([seed, index, number]), 256, 256)
            cv2.imwrite(str(folder / label / f"{number}.png"), picture)
    return folder
