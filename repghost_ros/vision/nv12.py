# SPDX-License-Identifier: Apache-2.0
"""Frame -> NV12 of the model's size, and back to RGB: this project's core.

Frames are scaled before they are converted, so the cost depends on the model's size, not the
camera's. YUV frames and JPEGs never become RGB: their planes are scaled directly. Chroma is the mean
of its 2x2 pixels. A few OpenCV calls, which release the GIL, do all the heavy work.

Scaling is bilinear with aligned pixel centres, as in the board's own resizer. Luma and grey planes are
first halved (means of 2x2) as long as they stay at least as large as the model: that is anti-aliased,
5 to 11 dB closer to the mean over each pixel's area, and costs little more than reading them. Halving
interleaved channels would cost more than all the rest; there rows are left out instead, which is
faster than bilinear alone and no further from that mean (1/f noise, 640x480 to 1920x1080).

Colours are BT.601. `full`: Y, U, V 0..255 (JPEG). `limited`: Y 16..235, U and V 16..240 (video).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np

from repghost_ros.errors import FrameError
from repghost_ros.vision.frame import BAYER, YCBCR, Frame

ColorRange = Literal["full", "limited"]
ResizePolicy = Literal["stretch", "crop", "letterbox"]
COLOR_RANGES: tuple[ColorRange, ...] = get_args(ColorRange)
RESIZE_POLICIES: tuple[ResizePolicy, ...] = get_args(ResizePolicy)
CROP_MARGIN = 256 / 224
"""ImageNet's evaluation scales the short side to this many times the side that it then cuts out."""

_LUMA = (0.299, 0.587, 0.114)
_LIMITED_GAINS = (219 / 255, 224 / 255)
"""Levels of the limited range to one of the full range, of Y and of U and V."""
_RGB_CODES = {
    "bgr8": (cv2.COLOR_BGR2GRAY, cv2.COLOR_BGR2YCrCb, 0),
    "rgb8": (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2YCrCb, 0),
    "bgra8": (cv2.COLOR_BGRA2GRAY, cv2.COLOR_BGR2YCrCb, cv2.COLOR_BGRA2BGR),
    "rgba8": (cv2.COLOR_RGBA2GRAY, cv2.COLOR_RGB2YCrCb, cv2.COLOR_RGBA2RGB),
}
"""OpenCV's full-range conversions to Y and to Y, V, U, the latter after the alpha is dropped."""
_YUV422_CHANNELS = {"yuv422": (1, 0, 2), "yuv422_yuy2": (0, 1, 3)}
"""Channel of Y among two bytes, and those of U and V among four."""


def to_nv12(
    frame: Frame,
    out: np.ndarray,
    *,
    resize: ResizePolicy = "stretch",
    color_range: ColorRange = "full",
    source_color_range: ColorRange = "limited",
) -> None:
    """Scale and convert a frame into an NV12 buffer.

    Args:
        frame: any encoding, any size.
        out: uint8 (height * 3 // 2, width) to fill, width and height even; rows may be padded.
        resize: `stretch` fills it; `crop` cuts out the centre as ImageNet's evaluation does (short
            side scaled to 256/224 of the model's); `letterbox` keeps all of the frame between black
            bars.
        color_range: of `out`.
        source_color_range: of the frame, if that is YUV; a JPEG's is full.

    Raises:
        ValueError: `out` is no NV12 buffer, or an option is unknown.
        FrameError: a Bayer frame smaller than one cell, or a JPEG that cannot be decoded.

    """
    y, uv = _planes(out)
    if color_range not in COLOR_RANGES or source_color_range not in COLOR_RANGES:
        raise ValueError(f"color ranges are {' and '.join(COLOR_RANGES)}")
    height, width = y.shape
    margin = CROP_MARGIN if resize == "crop" else 1.0
    frame = frame.decoded((math.ceil(width * margin), math.ceil(height * margin)))
    if resize == "crop":
        frame = _centre(frame, width, height)
    elif resize == "letterbox":
        y[...] = 0 if color_range == "full" else 16
        uv[...] = 128
        scale = min(width / frame.width, height / frame.height)
        # Even sizes and offsets keep luma and chroma together.
        inner_width = min(width, max(2, 2 * round(frame.width * scale / 2)))
        inner_height = min(height, max(2, 2 * round(frame.height * scale / 2)))
        left, top = (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2
        y = y[top : top + inner_height, left : left + inner_width]
        uv = uv[top // 2 : (top + inner_height) // 2, left // 2 : (left + inner_width) // 2]
    elif resize != "stretch":
        raise ValueError(f"resize '{resize}' is unknown: choose {', '.join(RESIZE_POLICIES)}")
    _CONVERT[frame.encoding](frame, y, uv, color_range, source_color_range)


def to_rgb(nv12: np.ndarray, color_range: ColorRange = "full") -> np.ndarray:
    """The RGB picture that the model sees in an NV12 buffer.

    Each chroma sample covers 2x2 pixels. Exact to one level of the BT.601 formulas.

    Args:
        nv12: uint8 (height * 3 // 2, width), rows may be padded.
        color_range: of `nv12`.

    Returns:
        uint8 (height, width, 3).

    """
    y, uv = _planes(nv12)
    height, width = y.shape
    chroma = cv2.resize(uv, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.transform(cv2.merge([y, chroma]), rgb_matrix(color_range))


def _planes(nv12: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luma (height, width) and chroma (height // 2, width // 2, 2) of an NV12 buffer."""
    rows = nv12.ndim == 2 and nv12.dtype == np.uint8 and nv12.strides[1] == 1
    if not rows or nv12.size == 0 or nv12.shape[0] % 3 or nv12.shape[1] % 2:
        raise ValueError(
            f"{nv12.dtype} {nv12.shape} is no NV12 buffer: uint8 (height * 3 // 2, width), height and "
            "width even, the bytes of a row adjacent"
        )
    height, width = nv12.shape[0] // 3 * 2, nv12.shape[1]
    return nv12[:height], nv12[height:].reshape(height // 2, width // 2, 2)


def _centre(frame: Frame, width: int, height: int) -> Frame:
    """The region that ImageNet's evaluation crops, not yet scaled."""
    scale = min(frame.width, frame.height) / (min(width, height) * CROP_MARGIN)
    scale = min(scale, frame.width / width, frame.height / height)
    # Even sizes keep luma and chroma together.
    inner_width, inner_height = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    left, top = (frame.width - inner_width) // 2, (frame.height - inner_height) // 2
    return frame.crop(max(0, left), max(0, top), inner_width, inner_height)


def _scale(source: np.ndarray, out: np.ndarray) -> None:
    """Into `out`'s memory."""
    source = _reduced(source, out)
    # A single pixel is copied to all: the OpenCV of Ubuntu 22.04 cannot scale one of several channels.
    if source.shape[:2] in (out.shape[:2], (1, 1)):
        np.copyto(out, source)
    else:
        cv2.resize(source, out.shape[1::-1], dst=out, interpolation=cv2.INTER_LINEAR)


def _scaled(source: np.ndarray, like: np.ndarray) -> np.ndarray:
    """To the height and width of `like`."""
    if source.shape[:2] == like.shape[:2]:
        return source
    out = np.empty((*like.shape[:2], *source.shape[2:]), np.uint8)
    _scale(source, out)
    return out


def _reduced(source: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Nearer to the size of `like`, but no smaller: one channel by halving, several by thinning."""
    height, width = source.shape[:2]
    if source.ndim == 2:
        while (
            height >= 2 * like.shape[0] and width >= 2 * like.shape[1] and not (height | width) & 1
        ):
            height, width = height // 2, width // 2
            source = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
        return source
    # Of every n rows the middle one; n divides the height, so that pixel centres stay aligned.
    n = max(n for n in range(1, max(1, height // like.shape[0]) + 1, 2) if height % n == 0)
    return source[n // 2 :: n]


# --- one function an encoding: frame, Y and UV to fill, their range, the frame's range -----------


def _from_rgb(frame: Frame, y: np.ndarray, uv: np.ndarray, color_range: str, _: str) -> None:
    _convert_rgb(_scaled(frame.planes[0], y), _RGB_CODES[frame.encoding], y, uv, color_range)


def _from_bayer(frame: Frame, y: np.ndarray, uv: np.ndarray, color_range: str, _: str) -> None:
    """Every 2x2 cell counts as one pixel: what shrinks needs no demosaicing."""
    height, width = frame.height // 2, frame.width // 2
    if not (height and width):
        raise FrameError(f"a Bayer image of {frame.width}x{frame.height} has no whole 2x2 cell")
    rows = frame.planes[0]
    # Two pictures of two channels: the colours of the even rows and those of the odd ones.
    halves = [_scaled(_groups(rows[parity : 2 * height : 2], width, 2), y) for parity in (0, 1)]
    pixels = np.empty((*y.shape, 3), np.uint8)
    other_green = np.empty_like(pixels)
    for picture, channels in zip(
        (pixels, other_green), _cell_channels(frame.encoding), strict=True
    ):
        cv2.mixChannels(halves, [picture], channels)
    cv2.addWeighted(pixels, 0.5, other_green, 0.5, 0, dst=pixels)
    _convert_rgb(pixels, _RGB_CODES["rgb8"], y, uv, color_range)


def _convert_rgb(
    pixels: np.ndarray, codes: tuple[int, int, int], y: np.ndarray, uv: np.ndarray, color_range: str
) -> None:
    to_grey, to_ycrcb, drop_alpha = codes
    cv2.cvtColor(pixels, to_grey, dst=y)
    halved = cv2.resize(pixels, uv.shape[1::-1], interpolation=cv2.INTER_AREA)
    if pixels.shape[2] == 4:
        halved = cv2.cvtColor(halved, drop_alpha)
    cv2.mixChannels([cv2.cvtColor(halved, to_ycrcb)], [uv], [2, 0, 1, 1])
    _change_range(y, uv, "full", color_range)


def _groups(rows: np.ndarray, width: int, size: int) -> np.ndarray:
    """Each row's first `width` groups of `size` adjacent bytes, (n, width, size), not copied."""
    return np.lib.stride_tricks.as_strided(
        rows, (rows.shape[0], width, size), (rows.strides[0], size, 1), writeable=False
    )


def _from_mono(frame: Frame, y: np.ndarray, uv: np.ndarray, color_range: str, _: str) -> None:
    _scale(frame.planes[0], y)
    uv[...] = 128
    _change_range(y, uv, "full", color_range)


def _from_yuv420(
    frame: Frame, y: np.ndarray, uv: np.ndarray, color_range: str, source_color_range: str
) -> None:
    luma, chroma = frame.planes
    _scale(luma, y)
    if frame.encoding == "nv12":
        _scale(chroma, uv)
    else:
        cv2.mixChannels([_scaled(chroma, uv)], [uv], [1, 0, 0, 1])
    _change_range(y, uv, source_color_range, color_range)


def _from_yuv422(
    frame: Frame, y: np.ndarray, uv: np.ndarray, color_range: str, source_color_range: str
) -> None:
    at_y, at_u, at_v = _YUV422_CHANNELS[frame.encoding]
    pairs = frame.planes[0]
    cv2.extractChannel(_scaled(pairs[:, : frame.width], y), at_y, dst=y)
    quads = _groups(pairs, pairs.shape[1] // 2, 4)
    cv2.mixChannels([_scaled(quads, uv)], [uv], [at_u, 0, at_v, 1])
    _change_range(y, uv, source_color_range, color_range)


def _from_ycbcr(frame: Frame, y: np.ndarray, uv: np.ndarray, color_range: str, _: str) -> None:
    luma, *chroma = frame.planes
    _scale(luma, y)
    cv2.mixChannels([_scaled(plane, uv) for plane in chroma], [uv], [0, 0, 1, 1])
    _change_range(y, uv, "full", color_range)


_CONVERT = {
    **dict.fromkeys(_RGB_CODES, _from_rgb),
    **dict.fromkeys(BAYER, _from_bayer),
    **dict.fromkeys(_YUV422_CHANNELS, _from_yuv422),
    "mono8": _from_mono,
    "nv12": _from_yuv420,
    "nv21": _from_yuv420,
    YCBCR: _from_ycbcr,
}


# --- colour --------------------------------------------------------------------------------------


def _change_range(y: np.ndarray, uv: np.ndarray, source: str, target: str) -> None:
    """In place, rounded and clipped."""
    if source == target:
        return
    # addWeighted takes a third of LUT's time, and clips, which convertScaleAbs does not.
    if target == "limited":
        y_gain, uv_gain = _LIMITED_GAINS
        black = 16.0
    else:
        y_gain, uv_gain = (1 / gain for gain in _LIMITED_GAINS)
        black = -16 * y_gain
    cv2.addWeighted(y, y_gain, y, 0, black, dst=y)
    cv2.addWeighted(uv, uv_gain, uv, 0, 128 - 128 * uv_gain, dst=uv)


@lru_cache
def _cell_channels(encoding: str) -> tuple[list[int], list[int]]:
    """From and to channels that make R, G, B of a cell's pixels, once with each of its greens."""
    cell = encoding[len("bayer_") : -1]
    red, blue = cell.index("r"), cell.index("b")
    first, second = ([red, 0, green, 1, blue, 2] for green in range(4) if cell[green] == "g")
    return first, second


@lru_cache
def rgb_matrix(color_range: str) -> np.ndarray:
    """float32 (3, 4): Y, U, V, 1 of this range to R, G, B, all 0 to 255."""
    red, green, blue = _LUMA
    black, y_gain, uv_gain = (0, 1, 1) if color_range == "full" else (16, *_LIMITED_GAINS)
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
