# SPDX-License-Identifier: Apache-2.0
"""NV12 by the book: float64, loops and formulas, nothing shared with the package or OpenCV."""

from __future__ import annotations

import numpy as np

RED, GREEN, BLUE = 0.299, 0.587, 0.114


def rgb_to_yuv(rgb: np.ndarray, color_range: str) -> np.ndarray:
    """BT.601 of float (..., 3) RGB 0..255: Y, U, V in the range's levels, not rounded."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    y = RED * red + GREEN * green + BLUE * blue
    u = (blue - y) / (2 * (1 - BLUE))
    v = (red - y) / (2 * (1 - RED))
    if color_range == "limited":
        return np.stack([16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255], -1)
    return np.stack([y, 128 + u, 128 + v], -1)


def yuv_to_rgb(yuv: np.ndarray, color_range: str) -> np.ndarray:
    """The inverse of rgb_to_yuv, clipped to 0..255."""
    y, u, v = np.moveaxis(yuv.astype(np.float64), -1, 0)
    u, v = u - 128, v - 128
    if color_range == "limited":
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red = y + 2 * (1 - RED) * v
    blue = y + 2 * (1 - BLUE) * u
    green = (y - RED * red - BLUE * blue) / GREEN
    return np.clip(np.stack([red, green, blue], -1), 0, 255)


def change_range(plane: np.ndarray, chroma: bool, source: str, target: str) -> np.ndarray:
    """Levels of one range in the other, clipped to 0..255."""
    if source == target:
        return plane.astype(np.float64)
    span, zero = (224.0, 128.0) if chroma else (219.0, 16.0)
    full_zero = 128.0 if chroma else 0.0
    if source == "limited":
        return np.clip((plane - zero) * 255 / span + full_zero, 0, 255)
    return (plane - full_zero) * span / 255 + zero


def bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resampling of a float (h, w) plane with aligned pixel centres and repeated edges."""
    rows, columns = plane.shape
    result = np.empty((height, width))
    for i in range(height):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        top = int(y)
        bottom = min(top + 1, rows - 1)
        for j in range(width):
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            left = int(x)
            right = min(left + 1, columns - 1)
            upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
            lower = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
            result[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return result


def resample(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear of each channel of an (h, w, n) picture."""
    planes = [
        bilinear(picture[..., n].astype(np.float64), height, width) for n in range(picture.shape[2])
    ]
    return np.stack(planes, -1)


def resample_luma(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """As resample, after halving an even-sized picture while it stays as large as asked for."""
    picture = picture.astype(np.float64)
    while True:
        rows, columns = picture.shape[:2]
        if rows % 2 or columns % 2 or rows // 2 < height or columns // 2 < width:
            return resample(picture, height, width)
        picture = mean_2x2(picture)


def resample_thinned(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """As resample, of the middle row of every 3, 5, 7, ... as far as that leaves `height` rows."""
    rows = len(picture)
    step = 1
    for n in (3, 5, 7, 9, 11, 13, 15):
        if rows % n == 0 and rows // n >= height:
            step = n
    return resample(np.stack([picture[i] for i in range(step // 2, rows, step)]), height, width)


def mean_2x2(picture: np.ndarray) -> np.ndarray:
    """Mean of each 2x2 pixels of an (h, w, n) picture of even size."""
    return (
        picture[0::2, 0::2] + picture[0::2, 1::2] + picture[1::2, 0::2] + picture[1::2, 1::2]
    ) / 4
