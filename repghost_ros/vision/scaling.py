# SPDX-License-Identifier: Apache-2.0
"""Planes of any encoding -> luma and chroma of the model's size, anti-aliased.

The filter is the Hermite one (1 - 3 d^2 + 2 d^3, as wide as two pixels of the result) at points: two
rows and four columns a pixel of the result, so that the points read depend on the model's size, not on
the camera's. Each point has the weight of what lies nearest to it, so that points which fall into the
same sample or beyond the edge count as they should. Smaller frames are interpolated linearly.

`Scaling` says of which points, weights and gains a part of the result is made. native/pixels.c and
`Scaling._fill` follow it to the same bits: rows are rounded to eight bits, all else is exact until luma
and chroma are. Tables are symmetrical, so a mirrored frame gives a mirrored result, to the bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import repghost_ros.native as native

ROW_ONE, COLUMN_ONE = 256, 64
"""The weights of a pixel add up to this."""
ROW_POINTS, COLUMN_POINTS = 2, 4
"""Points from one pixel of the result to the next."""
_LINEAR_POINTS = 4
"""Two, and their neighbors, which samples beside their pixels' centers need."""


@dataclass(frozen=True)
class Axis:
    """The points along an axis, and their weights."""

    index: np.ndarray
    """int32: the sample of each point, ascending."""
    weights: np.ndarray
    """uint16 (taps, size): of point `i * points + tap` in pixel i."""
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

    @property
    def of_pixel(self) -> np.ndarray:
        """The sample of each pixel's points, int32 (taps, size)."""
        return self.index[np.arange(self.size) * self.points + np.arange(self.taps)[:, None]]


def axis(
    samples: int, size: int, points: int, one: int, shift: float = 0.0, *, bilinear: bool = False
) -> Axis:
    """Make the points and weights of an axis.

    Args:
        samples: of the source.
        size: pixels of the result.
        points: from one pixel of the result to the next, where the source is larger.
        one: what the weights of a pixel add up to.
        shift: how far right of or below their pixels' centers the samples lie, in samples. The points
            are the same, their weights are not.
        bilinear: interpolate between the nearest two samples, however much larger the source is.

    """
    if samples == size and not shift:
        return Axis(np.arange(size, dtype=np.int32), np.full((1, size), one, np.uint16), 1)
    scale = samples / size
    centers = (np.arange(size) + 0.5) * scale
    if scale <= 1 or bilinear:
        points = taps = _LINEAR_POINTS
        index = (np.floor(centers - 0.5)[:, None] + np.arange(-1, taps - 1)).ravel().astype(int)
    else:
        taps = 2 * points
        index = np.clip(_grid(samples, size, points), 0, samples - 1)
    of_pixel = index[np.arange(size)[:, None] * points + np.arange(taps)]
    if scale <= 1 or bilinear:
        weights = np.maximum(0.0, 1 - np.abs(of_pixel + 0.5 + shift - centers[:, None]))
        weights[(of_pixel < 0) | (of_pixel >= samples)] = 0
    else:
        borders = np.empty((size, taps + 1))
        borders[:, 1:-1] = (of_pixel[:, 1:] + of_pixel[:, :-1] + 1) / 2 + shift
        borders[:, 0], borders[:, -1] = 0, samples
        part = _hermite_integral((np.clip(borders, 0, samples) - centers[:, None]) / scale)
        weights = np.diff(part, axis=1)
    whole = _whole(weights, one).astype(np.uint16)
    if scale > 1 and not bilinear and not shift:
        # Of weights that lost equally much, either may have been rounded up.
        whole[size - size // 2 :] = whole[: size // 2][::-1, ::-1]
    index = np.clip(index, 0, samples - 1)
    return Axis(index.astype(np.int32), np.ascontiguousarray(whole.T), points)


def _grid(samples: int, size: int, points: int) -> np.ndarray:
    """Return the samples under evenly spaced points, half a pixel more of them on either side."""
    odd = 2 * np.arange((size + 1) * points, dtype=np.int64) + 1 - points
    # Those between two samples belong to that which is nearer to the center, so to none of two sides.
    place, step = odd * samples, 2 * points * size
    left = place // step
    return np.where(2 * place < samples * step, left, -(-place // step) - 1)


def _hermite_integral(pixels: np.ndarray) -> np.ndarray:
    d = np.minimum(np.abs(pixels), 1.0)
    return np.copysign(d - d**3 + d**4 / 2, pixels)


def _whole(weights: np.ndarray, one: int) -> np.ndarray:
    """Round each pixel's weights so that they add up to `one`, mirrored pixels alike."""
    total = np.zeros(len(weights))
    half = weights.shape[1] // 2
    for tap in range(half):  # not np.sum, whose order depends on the processor
        total += weights[:, tap] + weights[:, -1 - tap]
    # What rounding leaves of equal numbers must not decide.
    exact = np.round(weights / total[:, None] * one, 6)
    whole = np.floor(exact)
    # Those that lost most are rounded up, until the sum is right; of equal ones those in the middle.
    order = np.argsort(np.abs(np.arange(2 * half) - half + 0.5), kind="stable")
    rank = np.empty(weights.shape)
    rank[:, order] = np.argsort(
        np.argsort((whole - exact)[:, order], axis=1, kind="stable"), axis=1
    )
    return whole + (rank < one - whole.sum(axis=1)[:, None])


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
        values = np.empty((self.rows[0].size, self.columns[0].size, lanes), np.int32)
        for number, (line, rows) in enumerate(zip(lines, self.rows, strict=True)):
            down = np.full((rows.size, self.bytes + 4), ROW_ONE // 2, np.uint16)
            for picked, weights in zip(rows.of_pixel, rows.weights, strict=True):
                down[:, : self.bytes] += line[picked] * weights[:, None]
            down //= ROW_ONE
            for lane in range(shared):
                columns = self.columns[number * shared + lane]
                across = np.zeros(values.shape[:2], np.uint16)
                for picked, weights in zip(columns.of_pixel, columns.weights, strict=True):
                    across += down[:, picked * self.pixel + self.offset + lane] * weights
                values[..., number * shared + lane] = across
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
        index = np.repeat(rows.of_pixel[:1].T, native.ROWS, axis=1)
        index[:, : rows.taps] = rows.of_pixel.T
        by_row = np.zeros((len(self.rows), rows.size, native.ROWS), np.uint16)
        for line, each in enumerate(self.rows):
            by_row[line, :, : each.taps] = each.weights.T
        # Its points have four values: rows are woven, two or four into one, where a pixel has fewer.
        together = native.LANES // lanes
        by_value = np.stack([each.weights for each in self.columns * together], axis=-1)
        places = columns.index * np.int32(self.pixel) + np.int32(self.offset)
        places *= np.int32(together * len(self.rows))
        kept = (index, by_row, places, np.ascontiguousarray(by_value))
        chroma = {"no": 0, "own": native.CHROMA, "halved": native.HALVED_CHROMA}[self.chroma]
        gains = (ctypes.c_int32 * 5 * 3)()
        for made, given in zip(gains, self.gains, strict=True):
            made[:lanes] = given[:lanes]
            made[4] = given[-1]
        scaling = native.Scaling(
            native.Axis(index.ctypes.data, by_row.ctypes.data, rows.size, native.ROWS, native.ROWS),
            native.Axis(
                places.ctypes.data, kept[3].ctypes.data, columns.size, columns.points, columns.taps
            ),
            gains,
            chroma | (native.LUMA if self.luma else 0),
            len(self.rows),
            lanes,
            self.bytes,
        )
        return scaling, kept


def _mixed(values: np.ndarray, gains: tuple[int, ...]) -> np.ndarray:
    total = np.full(values.shape[:2], gains[-1], np.int32)
    for lane in range(values.shape[2]):
        total += values[..., lane] * np.int32(gains[lane])
    return np.clip(total >> 22, 0, 255).astype(np.uint8)
