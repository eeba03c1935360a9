# SPDX-License-Identifier: Apache-2.0
"""Frame -> NV12 of the model's size, and back to RGB: this project's core.

Frames are scaled as they are, then converted: RGB is filtered as RGB, and luma and chroma of YUV
frames and JPEGs directly, so they never become RGB. Chroma of RGB is the mean of 2x2 pixels; chroma
samples are taken to lie in the center of their pixels. See `scaling` for the filter.
`interpolation="bilinear"` filters as the model zoo's samples do, without anti-aliasing.

Colors are BT.601. `full`: Y, U, V 0..255 (JPEG). `limited`: Y 16..235, U and V 16..240 (video).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np

from repghost_ros.errors import FrameError
from repghost_ros.vision.frame import BAYER, YCBCR, Frame
from repghost_ros.vision.scaling import (
    COLUMN_ONE,
    COLUMN_POINTS,
    ROW_ONE,
    ROW_POINTS,
    Scaling,
    axis,
)

ColorRange = Literal["full", "limited"]
ResizePolicy = Literal["stretch", "crop", "letterbox"]
COLOR_RANGES: tuple[ColorRange, ...] = get_args(ColorRange)
Interpolation = Literal["antialiased", "bilinear"]
RESIZE_POLICIES: tuple[ResizePolicy, ...] = get_args(ResizePolicy)
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
CROP_SHARE = 224 / 256
"""Share of the short side that ImageNet's usual evaluation cuts out of the middle."""

_LUMA = (0.299, 0.587, 0.114)
_LIMITED_GAINS = (219 / 255, 224 / 255)
"""Levels of the limited range to one of the full range, of Y and of U and V."""


@dataclass(frozen=True)
class Layout:
    """The position of luma, chroma or both in a frame."""

    lanes: str
    """The letter of each value of a pixel: r, g, b, y, u, v, or - for one that is not used."""
    pixel: int
    """Bytes from one pixel to the next."""
    offset: int = 0
    """Bytes before the first pixel's lanes."""
    planes: tuple[int, ...] = (0,)
    """Those of the frame that hold it. Of two, the lanes lie half in each."""


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "bgr8": (Layout("bgr-", 3),),
    "rgb8": (Layout("rgb-", 3),),
    "bgra8": (Layout("bgr-", 4),),
    "rgba8": (Layout("rgb-", 4),),
    "mono8": (Layout("y", 1),),
    "nv12": (Layout("y", 1), Layout("uv", 2, planes=(1,))),
    "nv21": (Layout("y", 1), Layout("vu", 2, planes=(1,))),
    "yuv422": (Layout("y", 2, offset=1), Layout("u-v-", 4)),
    "yuv422_yuy2": (Layout("y", 2), Layout("-u-v", 4)),
    YCBCR: (Layout("y", 1), Layout("uv", 1, planes=(1, 2))),
    # A 2x2 cell is a pixel, its rows are the planes.
    **{encoding: (Layout(encoding[len("bayer_") : -1], 2, planes=(0, 0)),) for encoding in BAYER},
}


def to_nv12(
    frame: Frame,
    out: np.ndarray,
    *,
    resize: ResizePolicy = "stretch",
    color_range: ColorRange = "full",
    source_color_range: ColorRange = "limited",
    interpolation: Interpolation = "antialiased",
) -> None:
    """Scale and convert a frame into an NV12 buffer.

    Args:
        frame: any encoding, any size.
        out: uint8 (height * 3 // 2, width) to fill, width and height even; rows may be padded.
        resize: `stretch` fills it; `crop` cuts out the center as ImageNet's evaluation does (short
            side scaled to 256/224 of the model's); `letterbox` keeps all of the frame between black
            bars.
        color_range: of `out`.
        source_color_range: of the frame, if that is YUV; a JPEG's is full.
        interpolation: `bilinear` is the zoo's, from the nearest 2x2 pixels.

    Raises:
        ValueError: `out` is not an NV12 buffer, or an option is unknown.
        FrameError: a Bayer frame smaller than one cell, or a JPEG that cannot be decoded.

    """
    plan(
        frame,
        out,
        resize=resize,
        color_range=color_range,
        source_color_range=source_color_range,
        interpolation=interpolation,
    ).run()


@dataclass(frozen=True)
class Part:
    """Luma, chroma or both of an NV12 image, and what of a frame they are made of."""

    scaling: Scaling
    lines: Sequence[np.ndarray]
    """One or two uint8 (rows, bytes)."""
    y: np.ndarray
    """uint8 (height, width)."""
    uv: np.ndarray
    """uint8 (height // 2, width)."""


@dataclass(frozen=True)
class Plan:
    """The steps that turn a frame into NV12; frames of the same layout take the same ones."""

    y: np.ndarray
    """uint8 (height, width), all of the luma."""
    uv: np.ndarray
    """uint8 (height // 2, width)."""
    black: int | None
    """Luma to begin with, if the parts leave bars."""
    gray: bool
    """Whether there is chroma that no part makes."""
    parts: tuple[Part, ...]
    frame: Frame
    """Decoded, as the parts take it."""

    def run(self) -> None:
        """Write the NV12 image.

        Raises:
            MemoryError: there is not enough memory.

        """
        if self.black is not None:
            self.y[...] = self.black
        if self.gray:
            self.uv[...] = 128
        for part in self.parts:
            part.scaling.fill(part.lines, part.y, part.uv)


def plan(
    frame: Frame,
    out: np.ndarray,
    *,
    resize: ResizePolicy = "stretch",
    color_range: ColorRange = "full",
    source_color_range: ColorRange = "limited",
    interpolation: Interpolation = "antialiased",
    crop_share: float = CROP_SHARE,
) -> Plan:
    """Return how `to_nv12` converts a frame; other arguments and errors are those of `to_nv12`.

    Args:
        crop_share: share of the short side that `crop` cuts out, above 0.0, at most 1.0.

    """
    whole_y, whole_uv = y, uv = _planes(out)
    if color_range not in COLOR_RANGES or source_color_range not in COLOR_RANGES:
        raise ValueError(f"color ranges are {' and '.join(COLOR_RANGES)}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolations are {' and '.join(INTERPOLATIONS)}")
    height, width = y.shape
    margin = 1 / crop_share if resize == "crop" else 1.0
    frame = frame.decoded((math.ceil(width * margin), math.ceil(height * margin)))
    if resize == "crop":
        frame = _center(frame, width, height, crop_share)
    elif resize == "letterbox":
        scale = min(width / frame.width, height / frame.height)
        # Even sizes and offsets keep luma and chroma together.
        inner_width = min(width, max(2, 2 * round(frame.width * scale / 2)))
        inner_height = min(height, max(2, 2 * round(frame.height * scale / 2)))
        left, top = (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2
        y = y[top : top + inner_height, left : left + inner_width]
        uv = uv[top // 2 : (top + inner_height) // 2, left : left + inner_width]
    elif resize != "stretch":
        raise ValueError(f"resize '{resize}' is unknown: choose {', '.join(RESIZE_POLICIES)}")
    if frame.encoding in BAYER and min(frame.width, frame.height) < 2:
        raise FrameError(f"a Bayer image of {frame.width}x{frame.height} has no whole 2x2 cell")
    if frame.encoding in (YCBCR, "mono8"):
        source_color_range = "full"
    parts = []
    for layout in LAYOUTS[frame.encoding]:
        lines, width = _lines(frame, layout)
        size = (width, len(lines[0]), y.shape[1], y.shape[0])
        ranges = (source_color_range, color_range)
        scaling = _scaling(layout, size, ranges, interpolation == "bilinear")
        parts.append(Part(scaling, lines, y, uv))
    has_bars = resize == "letterbox"
    black = (0 if color_range == "full" else 16) if has_bars else None
    gray = has_bars or frame.encoding == "mono8"
    return Plan(whole_y, whole_uv, black, gray, tuple(parts), frame)


def to_rgb(nv12: np.ndarray, color_range: ColorRange = "full") -> np.ndarray:
    """Return the RGB picture that the model sees in an NV12 buffer.

    Each chroma sample covers 2x2 pixels. Exact to one level of the BT.601 formulas.

    Args:
        nv12: uint8 (height * 3 // 2, width), rows may be padded.
        color_range: of `nv12`.

    Returns:
        uint8 (height, width, 3).

    """
    y, uv = _planes(nv12)
    height, width = y.shape
    chroma = uv.reshape(height // 2, width // 2, 2)
    chroma = cv2.resize(chroma, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.transform(cv2.merge([y, chroma]), rgb_matrix(color_range))


def _planes(nv12: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luma (height, width) and chroma (height // 2, width) of an NV12 buffer."""
    rows = nv12.ndim == 2 and nv12.dtype == np.uint8 and nv12.strides[1] == 1
    if not rows or nv12.size == 0 or nv12.shape[0] % 3 or nv12.shape[1] % 2:
        raise ValueError(
            f"{nv12.dtype} {nv12.shape} is not an NV12 buffer: uint8 (height * 3 // 2, width), height "
            "and width even, the bytes of a row adjacent"
        )
    height = nv12.shape[0] // 3 * 2
    return nv12[:height], nv12[height:]


def _center(frame: Frame, width: int, height: int, share: float) -> Frame:
    """Return the region that ImageNet's evaluation crops, not yet scaled."""
    scale = min(frame.width, frame.height) * share / min(width, height)
    scale = min(scale, frame.width / width, frame.height / height)
    # Even sizes keep luma and chroma together.
    inner_width, inner_height = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    left, top = (frame.width - inner_width) // 2, (frame.height - inner_height) // 2
    return frame.crop(max(0, left), max(0, top), inner_width, inner_height)


def _lines(frame: Frame, layout: Layout) -> tuple[list[np.ndarray], int]:
    """Return the rows of a layout's planes, uint8 (rows, bytes), and their width in pixels."""
    planes = [frame.planes[number] for number in layout.planes]
    if frame.encoding in BAYER:
        width, height = frame.width // 2, frame.height // 2
        planes = [plane[line : 2 * height : 2] for line, plane in enumerate(planes)]
    elif len(layout.lanes) == 1:
        width = frame.width
    else:
        plane = planes[0]
        width = plane[0].size // layout.pixel
    size = width * layout.pixel
    return [
        np.lib.stride_tricks.as_strided(
            plane, (len(plane), size), (plane.strides[0], 1), writeable=False
        )
        for plane in planes
    ], width


@lru_cache(64)
def _scaling(
    layout: Layout, size: tuple[int, int, int, int], ranges: tuple[str, str], bilinear: bool
) -> Scaling:
    """Return the scaling of a layout to luma of this width and height, or to its chroma."""
    width, height, wide, high = size
    lanes, lines = layout.lanes, len(layout.planes)
    colored = "g" in lanes
    if not colored and "y" not in lanes:
        wide, high = wide // 2, high // 2
    # The pixels of a Bayer cell lie a quarter of it from its center.
    shifts = (-0.25, 0.25) if colored and lines == 2 else (0.0, 0.0)
    return Scaling(
        rows=tuple(
            axis(height, high, ROW_POINTS, ROW_ONE, shift, bilinear=bilinear)
            for shift in shifts[:lines]
        ),
        columns=tuple(
            axis(width, wide, COLUMN_POINTS, COLUMN_ONE, shifts[lane % 2], bilinear=bilinear)
            for lane in range(len(lanes))
        ),
        pixel=layout.pixel,
        offset=layout.offset,
        width=width,
        gains=_gains(lanes, *ranges),
        luma=colored or "y" in lanes,
        chroma="halved" if colored else "no" if "y" in lanes else "own",
    )


# --- color ---------------------------------------------------------------------------------------


def _gains(lanes: str, source: str, target: str) -> tuple[tuple[int, ...], ...]:
    """Of Y, U and V: the factor of each lane, and what is added with half a level, in 65536ths."""
    black, y_gain, uv_gain = _levels(target)
    red, green, blue = _LUMA
    if "g" in lanes:
        y = {"r": red, "g": green, "b": blue}
        u = {name: ((name == "b") - part) / (2 * (1 - blue)) / 4 for name, part in y.items()}
        v = {name: ((name == "r") - part) / (2 * (1 - red)) / 4 for name, part in y.items()}
        y_zero = uv_zero = 0.0
    else:
        y_zero, source_y, source_uv = _levels(source)
        y, u, v = {"y": 1 / source_y}, {"u": 1 / source_uv}, {"v": 1 / source_uv}
        uv_zero = 128 / source_uv
        y_zero /= source_y
    return (
        _whole(lanes, y, y_gain, black - y_zero * y_gain),
        _whole(lanes, u, uv_gain, 128 - uv_zero * uv_gain),
        _whole(lanes, v, uv_gain, 128 - uv_zero * uv_gain),
    )


def _levels(color_range: str) -> tuple[float, float, float]:
    """Luma of black, and levels to one of the full range, of Y and of U and V."""
    return (0.0, 1.0, 1.0) if color_range == "full" else (16.0, *_LIMITED_GAINS)


def _whole(lanes: str, factors: dict[str, float], gain: float, added: float) -> tuple[int, ...]:
    """In 65536ths, so that what rounding does to the factors adds up to nothing."""
    exact = [gain * factors.get(name, 0.0) / lanes.count(name) * 65536 for name in lanes]
    whole = [round(factor) for factor in exact]
    most = max(range(len(lanes)), key=lambda lane: abs(whole[lane]))
    whole[most] += round(sum(exact)) - sum(whole)
    return (*whole, round((added + 0.5) * (1 << 22)))


@lru_cache
def rgb_matrix(color_range: str) -> np.ndarray:
    """float32 (3, 4): Y, U, V, 1 of this range to R, G, B, all 0 to 255."""
    red, green, blue = _LUMA
    black, y_gain, uv_gain = _levels(color_range)
    to_red, to_blue = 2 * (1 - red) / uv_gain, 2 * (1 - blue) / uv_gain
    matrix = np.array(
        [
            [1 / y_gain, 0.0, to_red],
            [1 / y_gain, -to_blue * blue / green, -to_red * red / green],
            [1 / y_gain, to_blue, 0.0],
        ]
    )
    offsets = -matrix @ np.array([[black], [128.0], [128.0]])
    return np.hstack([matrix, offsets]).astype(np.float32)
