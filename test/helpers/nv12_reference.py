# SPDX-License-Identifier: Apache-2.0
"""NV12 by the book: float64, loops and formulas, nothing shared with the package or OpenCV."""

from __future__ import annotations

from functools import lru_cache

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
    """Invert rgb_to_yuv, clipped to 0..255."""
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


def hermite(distance: float) -> float:
    d = abs(distance)
    return 1 - 3 * d**2 + 2 * d**3 if d < 1 else 0.0


def triangle(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


STEPS = 512
"""In which a filter is integrated, from one pixel of the result to the next."""


@lru_cache
def matrix(samples: int, size: int, points: int, kernel: str, moved: float = 0.0) -> np.ndarray:
    """(size, samples) of the weights that make pixels of samples.

    `hermite`, where the source is larger: as wide as two of the result's pixels, of which each part
    counts for the nearest of the samples that a point falls into, `points` of them to a pixel.
    Otherwise linear, between the nearest two samples. Samples lie `moved` to the right of their
    pixels' centers.
    """
    scale = samples / size
    weights = np.zeros((size, samples))
    for i in range(size):
        center = (i + 0.5) * scale
        if kernel == "triangle" or scale <= 1:
            for k in range(samples):
                weights[i, k] = triangle(k + 0.5 + moved - center)
        else:
            # Of a point between two samples either is right, so the tables' choice is not tested.
            places = (i + 0.5 + (np.arange(-points, points) + 0.5) / points) * scale
            inner = np.where(places * 2 < samples, places + 1e-9, places - 1e-9)
            used = np.unique(np.clip(np.floor(inner).astype(int), 0, samples - 1))
            steps = (np.arange(-STEPS, STEPS) + 0.5) / STEPS
            parts = center + steps * scale
            of_steps = np.abs(parts[:, None] - (used + 0.5 + moved)).argmin(axis=1)
            inside = (parts >= 0) & (parts < samples)
            shares = np.array([hermite(step) for step in steps]) * inside
            np.add.at(weights[i], used[of_steps], shares)
        weights[i] /= weights[i].sum()
    return weights


def resample(
    plane: np.ndarray,
    height: int,
    width: int,
    kernel: str = "hermite",
    moved: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Scale a float (h, w) plane."""
    down = matrix(plane.shape[0], height, 2, kernel, moved[0])
    across = matrix(plane.shape[1], width, 4, kernel, moved[1])
    return down @ plane.astype(np.float64) @ across.T


def resample_each(
    picture: np.ndarray, height: int, width: int, kernel: str = "hermite"
) -> np.ndarray:
    """Each channel of an (h, w, n) picture."""
    planes = [resample(picture[..., n], height, width, kernel) for n in range(picture.shape[2])]
    return np.stack(planes, -1)


def mean_2x2(picture: np.ndarray) -> np.ndarray:
    """Mean of each 2x2 pixels of an (h, w, n) picture of even size."""
    return (
        picture[0::2, 0::2] + picture[0::2, 1::2] + picture[1::2, 0::2] + picture[1::2, 1::2]
    ) / 4
