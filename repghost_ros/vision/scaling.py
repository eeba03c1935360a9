# SPDX-License-Identifier: Apache-2.0
"""Planes of any encoding -> luma and chroma of the model's size, anti-aliased.

The filter is Pillow's bicubic one (a = -0.5, as wide as four pixels of the result) at points: two rows
and four columns a pixel of the result, so that the points read depend on the model's size, not on the
camera's. Up to twice and four times the model's size that leaves no row and no column out. Beyond the
edge, weights are left out, as Pillow does. Weights are 128ths, and rows are rounded to eight bits
before columns are filtered.

`Scaling` says of which points, weights and gains a part of the result is made. native/pixels.c and
`Scaling._fill` follow it to the same bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import repghost_ros.native as native

ONE = 128
"""The weights of a pixel add up to this."""
ROW_POINTS, COLUMN_POINTS = 2, 4
"""Points from one pixel of the result to the next."""
_REACH = 2
"""Pixels from a pixel's center to the filter's end."""


@dataclass(frozen=True)
class Axis:
    """The points along an axis, and their weights."""

    index: np.ndarray
    """int32: the sample of each point, ascending."""
    weights: np.ndarray
    """int16 (taps, size): of point `i * points + tap` in pixel i."""
    points: int
    """From a pixel's first point to the next pixel's first."""

    @property
    def taps(self) -> int:
        """Points that make a pixel."""
        return len(self.weights)

    @property
    def size(self) -> int:
        """Pixels made."""
        return self.weights.shape[1]

    def along(self, points: np.ndarray) -> np.ndarray:
        """Return weighted sums of points on the first axis, uint8 (size, ...)."""
        shape = (self.size, *(1 for _ in points.shape[1:]))
        if self.taps == 1:
            return points
        total = np.full((self.size, *points.shape[1:]), ONE // 2, np.int32)
        last = (self.size - 1) * self.points + 1
        for tap, weight in enumerate(self.weights.astype(np.int32)):
            total += points[tap : tap + last : self.points] * weight.reshape(shape)
        return np.clip(total // ONE, 0, 255).astype(np.uint8)


def cubic(distance: np.ndarray) -> np.ndarray:
    """Return the bicubic filter with a = -0.5 at distances in pixels."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < _REACH, far, 0.0))


def linear(distance: np.ndarray) -> np.ndarray:
    """Return the bilinear filter at distances in pixels."""
    return np.maximum(0.0, 1 - np.abs(distance))


def axis(
    samples: int, size: int, points: int, shift: float = 0.0, *, bilinear: bool = False
) -> Axis:
    """Make the points and weights of an axis.

    Args:
        samples: of the source.
        size: pixels of the result.
        points: from one pixel of the result to the next, where the source is larger.
        shift: how far right of or below their pixels' centers the samples lie, in samples. The points
            are the same, their weights are not.
        bilinear: interpolate between the nearest two samples, however much larger the source is.

    """
    if samples == size and not shift:
        return Axis(np.arange(size, dtype=np.int32), np.full((1, size), ONE, np.int16), 1)
    scale = samples / size
    centers = (np.arange(size) + 0.5) * scale
    if scale <= 1 or bilinear:
        reach, points, taps = 1.0, 4, 4
        first = np.floor(centers - 0.5).astype(int) - 1
        index = (first[:, None] + np.arange(taps)).reshape(-1)
    else:
        reach, taps = scale, 2 * _REACH * points
        grid = np.arange((size - 1) * points + taps) - (_REACH - 0.5) * points + 0.5
        index = np.floor(grid / points * scale).astype(int)
    of_pixel = index[np.arange(size)[:, None] * points + np.arange(taps)]
    weights = (linear if bilinear else cubic)((of_pixel + 0.5 + shift - centers[:, None]) / reach)
    # A sample under several points counts once, and what lies beyond the edge does not.
    weights[:, 1:][np.diff(of_pixel, axis=1) == 0] = 0
    weights[(of_pixel < 0) | (of_pixel >= samples)] = 0
    total = np.zeros(size)
    for tap in range(taps):  # not np.sum, whose order depends on the processor
        total += weights[:, tap]
    exact = weights / total[:, None] * ONE
    whole = np.floor(exact)
    # Those that lost most are rounded up, until the sum is right.
    rank = np.argsort(np.argsort(whole - exact, axis=1, kind="stable"), axis=1)
    whole += rank < ONE - whole.sum(axis=1)[:, None]
    whole = whole.astype(np.int16)
    index = np.clip(index, 0, samples - 1)
    return Axis(index.astype(np.int32), np.ascontiguousarray(whole.T), points)


@dataclass(frozen=True)
class Scaling:
    """The way of one or two planes to luma, chroma or both."""

    rows: tuple[Axis, ...]
    """One for each line; they differ in their weights."""
    columns: tuple[Axis, ...]
    """One for each lane; they differ in their weights. In pixels."""
    pixel: int
    """Bytes from one pixel of the source to the next."""
    offset: int
    """Bytes before the first pixel's lanes."""
    width: int
    """Pixels of the source."""
    height: int
    """Rows of each line."""
    gains: tuple[tuple[int, ...], ...]
    """Of Y, U and V: a factor for each lane, then what is added, in 65536ths."""
    luma: bool
    chroma: str
    """`no`; `own`: a pixel is a chroma sample; `halved`: the mean of 2x2 pixels is one."""

    @property
    def bytes(self) -> int:
        """Of a row."""
        return self.width * self.pixel

    def fill(self, lines: Sequence[np.ndarray], y: np.ndarray, uv: np.ndarray) -> None:
        """Write luma and chroma.

        Args:
            lines: one or two uint8 (height, bytes), rows may be padded.
            y: uint8 (h, w), rows may be padded.
            uv: uint8 (h // 2, w), rows padded as those of `y`.

        Raises:
            MemoryError: there is not enough memory.

        """
        helper = native.library()
        if helper is None:
            self._fill(lines, y, uv)
            return
        addresses = (ctypes.c_void_p * 2)(*(line.ctypes.data for line in lines))
        steps = (ctypes.c_int64 * 2)(*(line.strides[0] for line in lines))
        if not helper.repghost_scale(
            ctypes.byref(self._native[0]),
            addresses,
            steps,
            y.ctypes.data,
            uv.ctypes.data,
            y.strides[0],
        ):
            raise MemoryError("there is no memory to scale a frame")

    def _fill(self, lines: Sequence[np.ndarray], y: np.ndarray, uv: np.ndarray) -> None:
        """Do the same in Python."""
        lanes = len(self.columns)
        shared = lanes // len(lines)
        picked = self.columns[0].index[:, None] * self.pixel + self.offset + np.arange(shared)
        picked = np.minimum(picked, self.bytes - 1)  # an unused fourth lane may lie behind the row
        pixels = np.empty((len(y) if self.luma else len(uv), self.columns[0].size, lanes), np.uint8)
        for number, (line, rows) in enumerate(zip(lines, self.rows, strict=True)):
            down = rows.along(line[rows.index[:, None, None], picked])
            for lane in range(shared):
                across = self.columns[number * shared + lane]
                points = np.ascontiguousarray(down[..., lane].T)
                pixels[..., number * shared + lane] = across.along(points).T
        values = pixels.astype(np.int32)
        if self.luma:
            y[...] = _mixed(values, self.gains[0])
        if self.chroma == "halved":
            values = values[::2, ::2] + values[::2, 1::2] + values[1::2, ::2] + values[1::2, 1::2]
        if self.chroma != "no":
            uv[:, ::2] = _mixed(values, self.gains[1])
            uv[:, 1::2] = _mixed(values, self.gains[2])

    @property
    def address(self) -> int:
        """Of the compiled helper's structure, which lives as long as this object."""
        return ctypes.addressof(self._native[0])

    @cached_property
    def _native(self) -> tuple[native.Scaling, tuple[np.ndarray, ...]]:
        """Return the compiled helper's structure, and the memory to which it points."""
        rows, columns, lanes = self.rows[0], self.columns[0], len(self.columns)
        by_row = np.zeros((len(self.rows), rows.size, native.ROWS), np.int16)
        for line, each in enumerate(self.rows):
            by_row[line, :, : each.taps] = each.weights.T
        by_value = np.stack([each.weights for each in self.columns], axis=-1)
        places = columns.index * np.int32(self.pixel) + np.int32(self.offset)
        kept = (rows.index, by_row, places, np.ascontiguousarray(by_value))
        chroma = {"no": 0, "own": native.CHROMA, "halved": native.HALVED_CHROMA}[self.chroma]
        gains = (ctypes.c_int32 * 5 * 3)()
        for made, given in zip(gains, self.gains, strict=True):
            made[:lanes] = given[:lanes]
            made[4] = given[-1]
        scaling = native.Scaling(
            native.Axis(
                rows.index.ctypes.data, by_row.ctypes.data, rows.size, rows.points, rows.taps
            ),
            native.Axis(
                places.ctypes.data, kept[3].ctypes.data, columns.size, columns.points, columns.taps
            ),
            gains,
            chroma | (native.LUMA if self.luma else 0),
            len(self.rows),
            lanes,
            self.pixel,
            self.bytes,
            self.height,
        )
        return scaling, kept


def _mixed(values: np.ndarray, gains: tuple[int, ...]) -> np.ndarray:
    total = np.full(values.shape[:2], gains[-1], np.int32)
    for lane in range(values.shape[2]):
        total += values[..., lane] * np.int32(gains[lane])
    return np.clip(total >> 16, 0, 255).astype(np.uint8)
