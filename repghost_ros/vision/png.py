# SPDX-License-Identifier: Apache-2.0
"""PNG: checking its chunks before decoding (ISO/IEC 15948)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np

from repghost_ros.errors import FrameError
from repghost_ros.vision.jpeg import FLAGS, exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEEP = (
    "the PNG has 16 bits a sample, as depth and raw images have: convert the file to 8 bits, or let "
    "the driver publish mono8, bgr8 or rgb8"
)
"""Why a PNG of 16 bits is refused where the range of its values is not known."""
_COLOR = 2
"""The bit of IHDR's color type."""


@dataclass(frozen=True)
class Png:
    """The information in a PNG's chunks."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    bits: int
    """Of a sample: 1 to 16."""
    is_color: bool
    """It is not gray."""
    frames: int
    """1, or those of an animation (APNG)."""
    orientation: int
    """EXIF orientation, 1 (upright) to 8."""
    end: int
    """Bytes up to its last chunk and with it."""
    complaint: str
    """What is missing, or empty."""


def parse(data: bytes) -> Png:
    """Walk through a PNG's chunks.

    Raises:
        FrameError: it ends, or is broken, before its header does.

    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise FrameError(f"the PNG of {len(data)} bytes is truncated or broken: it has no header")
    width, height, bits, color = struct.unpack(">IIBB", data[16:26])
    position, orientation, frames = len(SIGNATURE), 1, 1
    complaint = "its last chunk is missing"
    while len(data) >= position + 12:
        length, name = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            complaint = f"its chunk {name.decode('latin-1')} alone lacks {end - len(data)} bytes"
            break
        if name == b"eXIf":
            orientation = exif_orientation(data[position + 8 : end - 4])
        elif name == b"acTL" and length >= 4:
            (frames,) = struct.unpack(">I", data[position + 8 : position + 12])
        position = end
        if name == b"IEND":
            complaint = ""
            break
    is_color = bool(color & _COLOR)
    return Png(width, height, bits, is_color, frames, orientation, position, complaint)


def decode(data: bytes, png: Png) -> np.ndarray:
    """Return the picture, of 16 bits a sample the upper 8.

    Args:
        data: the PNG, whatever follows it.
        png: its `parse` result.

    Returns:
        uint8 (height, width, 3) BGR, or (height, width) if the PNG is gray.

    Raises:
        FrameError: it is truncated or broken.

    """
    if png.complaint:
        raise FrameError(f"the PNG of {len(data)} bytes is truncated: {png.complaint}")
    try:
        picture = cv2.imdecode(np.frombuffer(data[: png.end], np.uint8), FLAGS)
    except cv2.error as error:
        raise FrameError(f"the PNG cannot be decoded: {error}") from error
    if picture is None:
        raise FrameError(f"the PNG of {len(data)} bytes cannot be decoded: its data is broken")
    return picture
