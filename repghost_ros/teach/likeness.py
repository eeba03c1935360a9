# SPDX-License-Identifier: Apache-2.0
"""Near-duplicates: pictures that show nearly the same, such as neighboring frames of one camera."""

from __future__ import annotations

import cv2
import numpy as np

from repghost_ros.engine.overlay import picture
from repghost_ros.vision.frame import Frame

SIDE = 16  # pixels of a thumbnail
NEAR = 4.0
"""Mean difference of two thumbnails, in levels of 255, up to which they show nearly the same."""


def thumbnail(frame: Frame) -> np.ndarray:
    """Return a frame's gray thumbnail at zero mean: float32 (256,), in levels of 255."""
    rgb = picture(frame)
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
    zero_mean: np.ndarray = gray - gray.mean()
    return zero_mean


def near(thumbnail: np.ndarray, others: np.ndarray, limit: float = NEAR) -> np.ndarray:
    """Return which of the thumbnails (count, 256) show nearly the same as one: bool (count,)."""
    return np.asarray(np.abs(others - thumbnail).mean(axis=1) <= limit)
