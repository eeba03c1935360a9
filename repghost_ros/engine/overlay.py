# SPDX-License-Identifier: Apache-2.0
"""The camera's picture with its classification drawn on it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from repghost_ros.engine.results import Result
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import ColorRange, to_nv12, to_rgb

_LEAST = 11  # pixels a line's letters are high at least
_LINES = 24  # that the picture has room for, where it is large enough
_SHADE = 0.35  # of the picture's light that is left behind the text
_NAMED, _UNNAMED = (60, 220, 60), (160, 160, 160)  # RGB of a box with and without a class
_FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
)


def picture(frame: Frame, source_color_range: ColorRange = "limited") -> np.ndarray:
    """Return the frame in RGB, uint8 (height, width, 3)."""
    height, width = frame.height + frame.height % 2, frame.width + frame.width % 2
    nv12 = np.empty((height * 3 // 2, width), np.uint8)
    to_nv12(frame, nv12, source_color_range=source_color_range)
    return np.ascontiguousarray(to_rgb(nv12, "full")[: frame.height, : frame.width])


def annotated(
    frame: Frame, results: Iterable[Result], source_color_range: ColorRange = "limited"
) -> np.ndarray:
    """Return a copy of the frame with `draw_overlay`'s lines, as BGR uint8 (height, width, 3)."""
    rgb = picture(frame, source_color_range)
    draw_overlay(rgb, results)
    return np.ascontiguousarray(rgb[..., ::-1])


def draw_overlay(rgb: np.ndarray, results: Iterable[Result]) -> None:
    """Write `score class_id` lines onto a uint8 (height, width, 3) picture, best on top.

    The text stands in a darkened box. What does not fit is left out: the ends of long names, lines
    below the middle. Names in non-Latin scripts need Pillow and a font with their letters.
    """
    height, width = rgb.shape[:2]
    size = max(_LEAST, height // _LINES)
    margin = size // 3
    line = size + margin
    rows = max(1, (height // 2 - margin) // line)
    masks = [_fitting(_line(result), size, width - 2 * margin) for result in list(results)[:rows]]
    if not masks:
        return
    right = 2 * margin + max(mask.shape[1] for mask in masks)
    _shade(rgb[: len(masks) * line + margin, :right])
    for row, mask in enumerate(masks):
        _write(rgb, mask, margin, margin + row * line)


def draw_boxes(
    rgb: np.ndarray, answers: Iterable[tuple[tuple[int, int, int, int], Result | None]]
) -> None:
    """Draw regions onto a uint8 (height, width, 3) picture, with their best classes.

    Args:
        rgb: the picture.
        answers: x, y, width, height of a region in pixels, and its best class, None if it has none.

    """
    size = max(_LEAST, rgb.shape[0] // (2 * _LINES))
    for (x, y, width, height), best in answers:
        color = _NAMED if best is not None else _UNNAMED
        thickness = max(1, size // 8)
        cv2.rectangle(rgb, (x, y), (x + width - 1, y + height - 1), color, thickness)
        if best is None:
            continue
        mask = _fitting(_line(best), size, rgb.shape[1])
        left = max(0, min(x, rgb.shape[1] - mask.shape[1]))
        top = max(0, y - mask.shape[0])  # above the region, if there is room
        _shade(rgb[top : top + mask.shape[0], left : left + mask.shape[1]])
        _write(rgb, mask, left, top)


def _line(result: Result) -> str:
    return f"{result.score:4.0%} {result.class_id}"


def _shade(part: np.ndarray) -> None:
    """Darken a part of a picture."""
    part[...] = cv2.convertScaleAbs(part, alpha=_SHADE)


def _write(rgb: np.ndarray, mask: np.ndarray, left: int, top: int) -> None:
    """Write white letters onto a picture, cut at its edges."""
    part = rgb[top : top + mask.shape[0], left : left + mask.shape[1]]
    weight = mask[: part.shape[0], : part.shape[1], None].astype(np.float32) / 255
    part[...] = part * (1 - weight) + 255 * weight


def _fitting(text: str, size: int, width: int) -> np.ndarray:
    """Draw the text's mask, cut to a width in pixels."""
    mask = _mask(text, size)
    length = len(text)
    while mask.shape[1] > width and length > 1:
        length = min(length - 1, length * width // mask.shape[1] + 1)
        mask = _mask(text[:length].rstrip(" ,") + "\N{HORIZONTAL ELLIPSIS}", size)
    return mask


def _mask(text: str, size: int) -> np.ndarray:
    """Draw the letters' coverage of each pixel, uint8 (about 1.25 * size, width)."""
    font = _font(size, "".join(sorted({letter for letter in text if ord(letter) > 0x17F})))
    if font is None:
        return _plain_mask(text, size)
    from PIL import Image, ImageDraw

    ascent, descent = font.getmetrics()
    canvas = Image.new("L", (max(1, int(font.getlength(text)) + 1), ascent + descent))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=font)
    return np.asarray(canvas)


def _plain_mask(text: str, size: int) -> np.ndarray:
    """Draw the same with OpenCV's letters, which are ASCII only."""
    text = text.replace("\N{HORIZONTAL ELLIPSIS}", "...")
    text = text.encode("ascii", "replace").decode()
    face, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, size / 28, max(1, size // 14)
    (width, height), below = cv2.getTextSize(text, face, scale, thickness)
    canvas = np.zeros((height + below + thickness, width + thickness), np.uint8)
    cv2.putText(canvas, text, (0, height), face, scale, (255,), thickness, cv2.LINE_AA)
    return canvas


@cache
def _font(size: int, letters: str) -> Any:
    """Find a font with these letters and Latin ones, if there is one; None without Pillow."""
    try:
        from PIL import ImageFont
    except ImportError:
        return None
    for path, index in _font_files(letters):
        try:
            return ImageFont.truetype(path, size, index)
        except OSError:
            continue
    try:
        return ImageFont.load_default(size)  # Pillow's own, Latin only
    except (TypeError, OSError):  # Pillow before 10.1 has none of that size
        return None


@cache
def _font_files(letters: str) -> tuple[tuple[str, int], ...]:
    """Paths of font files and the font's number in them, the best first."""
    found = []
    if shutil.which("fc-match"):
        pattern = "sans" + (f":charset={' '.join(f'{ord(c):x}' for c in letters)}" * bool(letters))
        command = ["fc-match", "--format=%{file}|%{index}", pattern]
        listed = subprocess.run(command, capture_output=True, text=True).stdout
        path, _, index = listed.partition("|")
        if index.isdecimal():
            found.append((path, int(index) & 0xFFFF))
    return (*found, *((path, 0) for path in _FONTS if Path(path).is_file()))
