"""sensor_msgs Image and CompressedImage -> Frame: checked, and not copied.

Nothing is allocated before the message's claims fit its data, so a header that promises gigabytes
costs nothing. Messages are read by their fields alone, no ROS is needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from repghost_ros.errors import FrameError

MAX_PIXELS = 64_000_000
"""Pixels of a compressed image that are decoded at most, against decompression bombs."""

PACKED = {"mono8": 1, "bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4}
"""Bytes a pixel of the packed encodings."""
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
_ALIASES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2", "8UC1": "mono8", "8UC3": "bgr8"}
_YUV422 = ("yuv422", "yuv422_yuy2")
_YUV420 = ("nv12", "nv21")
ENCODINGS = (*PACKED, *BAYER, *_YUV422, *_YUV420)
"""Encodings taken as they are, by their sensor_msgs names; the others go through cv_bridge."""


@dataclass(frozen=True)
class Frame:
    """One picture as views into its message.

    planes: uint8 arrays. Packed encodings: (height, width, channels), mono8 and Bayer (height,
    width). yuv422*: (height, width rounded up to even, 2). nv12, nv21: luma (height, width) and
    chroma (ceil(height / 2), ceil(width / 2), 2).
    """

    encoding: str
    """One of ENCODINGS."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    planes: tuple[np.ndarray, ...]

    def crop(self, x: int, y: int, width: int, height: int) -> Frame:
        """A region of the frame, not copied.

        Args:
            x, y: left upper corner in pixels, rounded down to even ones where chroma or Bayer cells
                are shared by pixels.
            width, height: of the region in pixels, cut at the frame's edge.

        Raises:
            FrameError: the region lies outside the frame.

        """
        if not (0 <= x < self.width and 0 <= y < self.height and width > 0 and height > 0):
            raise FrameError(
                f"region {width}x{height} at ({x}, {y}) lies outside the {self.width}x{self.height} "
                "frame: set roi to a region inside"
            )
        if self.encoding not in PACKED:
            x, y = x & ~1, y & ~1
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        luma = self.planes[0][y:bottom, x : right + (right % 2 if self.encoding in _YUV422 else 0)]
        planes: tuple[np.ndarray, ...] = (luma,)
        if self.encoding in _YUV420:
            planes = (luma, self.planes[1][y // 2 : (bottom + 1) // 2, x // 2 : (right + 1) // 2])
        return Frame(self.encoding, right - x, bottom - y, planes)


def from_array(bgr: np.ndarray) -> Frame:
    """A frame of a BGR uint8 (height, width, 3) or grey uint8 (height, width) picture."""
    encoding = "mono8" if bgr.ndim == 2 else "bgr8"
    return Frame(encoding, bgr.shape[1], bgr.shape[0], (bgr,))


def from_image(message: Any) -> Frame:
    """The picture in a sensor_msgs/Image.

    Raises:
        FrameError: size, step, data and encoding do not agree, or the encoding needs cv_bridge and
            that is not installed.

    """
    encoding = _ALIASES.get(message.encoding, message.encoding)
    width, height, step = message.width, message.height, message.step
    if width <= 0 or height <= 0:
        raise FrameError(f"the image is {width}x{height}: the camera driver sent no pixels")
    if encoding not in ENCODINGS:
        return _with_cv_bridge(message)
    even_width, half_height = width + width % 2, (height + 1) // 2
    row = {**dict.fromkeys(_YUV422, 2 * even_width), **dict.fromkeys(_YUV420, even_width)}.get(
        encoding, width * PACKED.get(encoding, 1)
    )
    if step < row:
        raise FrameError(
            f"step {step} is too small: a row of {width} {encoding} pixels has {row} bytes; the "
            "camera driver fills step wrongly"
        )
    rows = height + half_height if encoding in _YUV420 else height
    # The last row need not be padded.
    needed = (rows - 1) * step + row
    if len(message.data) < needed:
        raise FrameError(
            f"data has {len(message.data)} bytes, but {width}x{height} {encoding} at step {step} "
            f"needs {needed}: the message is truncated or its header wrong"
        )

    def plane(*shape: int, first_row: int = 0) -> np.ndarray:
        channels = shape[2] if len(shape) == 3 else 1
        strides = (step, channels, 1)[: len(shape)]
        return np.ndarray(shape, np.uint8, message.data, first_row * step, strides)

    if encoding in _YUV422:
        return Frame(encoding, width, height, (plane(height, even_width, 2),))
    if encoding in _YUV420:
        chroma = plane(half_height, even_width // 2, 2, first_row=height)
        return Frame(encoding, width, height, (plane(height, width), chroma))
    if encoding in PACKED and encoding != "mono8":
        return Frame(encoding, width, height, (plane(height, width, PACKED[encoding]),))
    return Frame(encoding, width, height, (plane(height, width),))


def _with_cv_bridge(message: Any) -> Frame:
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise FrameError(
            f"encoding '{message.encoding}' needs cv_bridge, which is not installed (apt install "
            f"ros-$ROS_DISTRO-cv-bridge); taken without it: {', '.join(ENCODINGS)}"
        ) from error
    try:
        return from_array(CvBridge().imgmsg_to_cv2(message, "bgr8"))
    except Exception as error:  # cv_bridge's and OpenCV's errors have no common base
        raise FrameError(f"cv_bridge cannot convert '{message.encoding}': {error}") from error


def from_compressed(message: Any, max_pixels: int = MAX_PIXELS) -> Frame:
    """The picture in a sensor_msgs/CompressedImage, JPEG or PNG whatever its format field says.

    The camera's geometry is kept: an EXIF orientation does not turn the picture.

    Raises:
        FrameError: the data is no JPEG or PNG, is broken or truncated, or holds more than
            `max_pixels`.

    """
    data = bytes(message.data)
    if data[:2] == b"\xff\xd8":
        # A truncated JPEG would decode to a picture with a grey end.
        size = _jpeg_size(data) if b"\xff\xd9" in data[-1024:] else None
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        size = struct.unpack(">II", data[16:24]) if len(data) >= 24 else None
    else:
        raise FrameError(
            f"the compressed image ('{message.format}', {len(data)} bytes) is neither JPEG nor PNG: "
            "other formats are not supported"
        )
    if size is None or 0 in size:
        raise FrameError(f"the compressed image ({len(data)} bytes) is truncated or broken")
    width, height = size
    if width * height > max_pixels:
        raise FrameError(
            f"the compressed image claims {width}x{height} pixels, more than the {max_pixels} that "
            "are decoded at most"
        )
    try:
        picture = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise FrameError(f"the compressed image cannot be decoded: {error}") from error
    if picture is None:
        raise FrameError(f"the compressed image ({len(data)} bytes) cannot be decoded")
    return from_array(picture)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a JPEG's frame header, or None where it has none."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these have no length
            position += 2
            continue
        # SOF0 to SOF15, but for the Huffman, arithmetic and reserved tables among them.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
