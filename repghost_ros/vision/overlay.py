"""The camera's picture with its classification written on it."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from repghost_ros.results import Result
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import ColorRange, to_nv12, to_rgb


def picture(frame: Frame, source_color_range: ColorRange = "limited") -> np.ndarray:
    """The frame in RGB, uint8 (height, width, 3), odd sizes rounded up to even ones."""
    height, width = frame.height + frame.height % 2, frame.width + frame.width % 2
    nv12 = np.empty((height * 3 // 2, width), np.uint8)
    to_nv12(frame, nv12, source_color_range=source_color_range)
    return to_rgb(nv12, "full")


def draw_overlay(rgb: np.ndarray, results: Iterable[Result]) -> None:
    """Write `class_id score` lines onto a uint8 (height, width, 3) picture, best on top."""
    scale = max(rgb.shape[0] / 480, 0.4)
    line = int(22 * scale)
    for row, result in enumerate(results, start=1):
        text = f"{result.score:6.1%} {result.class_id}"
        # Dark below light, so that it reads on any background.
        for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                rgb,
                text,
                (line // 3, row * line),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.6 * scale,
                color,
                thickness,
                cv2.LINE_AA,
            )
