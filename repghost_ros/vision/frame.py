# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs Image and CompressedImage, and arrays -> Frame: checked but not copied.

Nothing is allocated until the header has been checked against the data, so a header that claims
gigabytes does no harm. Messages are read through their fields; ROS is not needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from repghost_ros.errors import FrameError
from repghost_ros.vision import jpeg, png
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.kinds import kind_of

MAX_PIXELS = 64_000_000
"""Pixels of a compressed image that are decoded at most, against decompression bombs."""

PACKED = {"mono8": 1, "bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4}
"""Bytes a pixel of the packed encodings."""
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
_SPELLINGS = {
    **dict.fromkeys(
        ("mono8", "8uc1", "mono", "gray", "grey", "gray8", "grey8", "y8", "y800"), "mono8"
    ),
    **dict.fromkeys(("bgr8", "8uc3", "bgr", "bgr24", "bgr3", "bgr8packed"), "bgr8"),
    **dict.fromkeys(("rgb8", "rgb", "rgb24", "rgb3", "rgb8packed"), "rgb8"),
    **dict.fromkeys(("bgra8", "bgra", "bgrx", "bgr0", "bgra8packed"), "bgra8"),
    **dict.fromkeys(("rgba8", "rgba", "rgbx", "rgb0", "rgba8packed"), "rgba8"),
    **dict.fromkeys(("bayer_rggb8", "bayerrg8", "srggb8", "rggb"), "bayer_rggb8"),
    **dict.fromkeys(("bayer_bggr8", "bayerbg8", "sbggr8", "ba81"), "bayer_bggr8"),
    **dict.fromkeys(("bayer_gbrg8", "bayergb8", "sgbrg8", "gbrg"), "bayer_gbrg8"),
    **dict.fromkeys(("bayer_grbg8", "bayergr8", "sgrbg8", "grbg"), "bayer_grbg8"),
    **dict.fromkeys(
        ("yuv422", "uyvy", "uyvy422", "yuv422_8_uyvy", "ycbcr422_8_cbycry", "yuv422packed"),
        "yuv422",
    ),
    **dict.fromkeys(
        ("yuv422_yuy2", "yuyv", "yuy2", "yuyv422", "yuv422_yuyv", "yuv422_8", "ycbcr422_8"),
        "yuv422_yuy2",
    ),
    "yuv422_yuyv_packed": "yuv422_yuy2",
    "nv12": "nv12",
    "nv21": "nv21",
}
"""Other spellings of ENCODINGS, in lower case: GenICam's PFNC and GigE Vision, V4L2, FFmpeg, GStreamer.

Only names that mean the same bytes to all of them: RGB888 is R, G, B or B, G, R, as one asks.
"""
_CODECS = ("jpeg", "jpg", "mjpeg", "mjpg", "png", "h264", "h265", "hevc", "compressed")
_FOR_CV_BRIDGE = re.compile(
    r"mono16|(rgb|bgr)a?16|bayer_(rggb|bggr|gbrg|grbg)16|nv24|(8|16|32|64)[USF]C?\d*"
)
"""Encodings of sensor_msgs that are not taken as they are."""
_PAGE = 4096
"""Bytes that drivers round the size of a buffer up to."""
_ROWS = 16
"""Rows that encoders round the height of a buffer up to."""
_YUV422 = ("yuv422", "yuv422_yuy2")
_YUV420 = ("nv12", "nv21")
ENCODINGS = (*PACKED, *BAYER, *_YUV422, *_YUV420)
"""Encodings taken as they are, by their sensor_msgs names; the others go through cv_bridge."""
YCBCR = "ycbcr"
"""What a JPEG holds: planes of Y, U and V, full-range BT.601. No message has this encoding."""


@dataclass(frozen=True)
class Frame:
    """One picture as views into its message.

    planes: uint8 arrays. Packed encodings: (height, width, channels), mono8 and Bayer (height,
    width). yuv422*: (height, width rounded up to even, 2). nv12, nv21: luma (height, width) and
    chroma (ceil(height / 2), ceil(width / 2), 2). ycbcr: Y (height, width), U and V (ceil(height / m),
    ceil(width / n)) with m and n of 1, 2 or 4.
    """

    encoding: str
    """One of ENCODINGS, or YCBCR."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    planes: tuple[np.ndarray, ...]
    note: str = ""
    """What was left out or lost on the way though the frame is taken, for the user to know of."""
    whole: tuple[np.ndarray, ...] = ()
    """The planes of a decoded JPEG, of which this may be a region."""

    def crop(self, x: int, y: int, width: int, height: int) -> Frame:
        """Return a region of the frame, not copied.

        Args:
            x, y: upper left corner in pixels, rounded down where pixels share chroma or Bayer cells:
                to even numbers, to multiples of 4 where four pixels of a JPEG's row share chroma.
            width, height: the region's size in pixels, clipped to the frame.

        Raises:
            FrameError: the region lies outside the frame.

        """
        x, y, right, bottom = self._region(x, y, width, height)
        across, down = self._cell
        luma = self.planes[0][y:bottom, x : right + (right % 2 if self.encoding in _YUV422 else 0)]
        rows = slice(y // down, -(-bottom // down))
        columns = slice(x // across, -(-right // across))
        planes = (luma, *(plane[rows, columns] for plane in self.planes[1:]))
        return replace(self, width=right - x, height=bottom - y, planes=planes)

    def _region(self, x: int, y: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what `crop` cuts out."""
        if not (0 <= x < self.width and 0 <= y < self.height and width > 0 and height > 0):
            raise FrameError(
                f"region {width}x{height} at ({x}, {y}) lies outside the {self.width}x{self.height} "
                "frame: set roi to a region inside"
            )
        across, down = self._cell
        x, y = x // across * across, y // down * down
        return x, y, min(x + width, self.width), min(y + height, self.height)

    def decoded(self, least: tuple[int, int] | None = None) -> Frame:
        """Return the frame with its pixels: itself, unless it is a JpegFrame."""
        return self

    @property
    def encoded(self) -> bytes | None:
        """The whole frame as the content of a JPEG file; None where it did not come as one."""
        return None

    @property
    def _cell(self) -> tuple[int, int]:
        """Pixels across and down that share chroma or a Bayer cell."""
        if self.encoding in PACKED:
            return 1, 1
        if self.encoding != YCBCR:
            return 2, 2
        height, width = self.planes[1].shape
        across = next(n for n in (1, 2, 4) if -(-self.width // n) == width)
        return across, next(n for n in (1, 2, 4) if -(-self.height // n) == height)


@dataclass(frozen=True)
class JpegFrame(Frame):
    """A JPEG or a region of one, checked up to its picture data; `decoded` gives it planes."""

    planes: tuple[np.ndarray, ...] = ()
    data: bytes = b""
    """The JPEG, whatever follows it."""
    header: jpeg.Jpeg = field(default_factory=jpeg.Jpeg)
    _corner: tuple[int, int] = (0, 0)
    """Left and top of the region in the JPEG, in pixels."""

    def crop(self, x: int, y: int, width: int, height: int) -> Frame:
        """See Frame."""
        x, y, right, bottom = self._region(x, y, width, height)
        corner = (self._corner[0] + x, self._corner[1] + y)
        return replace(self, width=right - x, height=bottom - y, _corner=corner)

    @property
    def encoded(self) -> bytes | None:
        """See Frame; None where a viewer would see other pixels, such as a mosaic."""
        size = self.header.width, self.header.height
        is_whole = self._corner == (0, 0) and (self.width, self.height) == size
        return self.data if is_whole and self.encoding in ("bgr8", "mono8") else None

    @property
    def _cell(self) -> tuple[int, int]:
        return (2, 2) if self.encoding in BAYER else self.header.cell

    def decoded(self, least: tuple[int, int] | None = None) -> Frame:
        """Decode the frame at its own size or, which costs less, at a half, a quarter or an eighth.

        Args:
            least: width and height in pixels that the smaller frame must have; None: its own size.

        Raises:
            FrameError: the data is broken or truncated.

        """
        shrink = 1
        if least is not None and self.encoding not in BAYER:  # a mosaic has no smaller one
            shrink = max(n for n in jpeg.SHRINKS if n == 1 or self._shrinks(n, least))
        # Where the encoder took RGB for BGR, its Y, U and V are no luma and chroma.
        planes = jpeg.decode(self.data, self.header, shrink, yuv=self.encoding == "bgr8")
        encoding = YCBCR if len(planes) == 3 else self.encoding
        height, width = planes[0].shape[:2]
        left, top, right, bottom = (
            side // shrink
            for side in (*self._corner, self._corner[0] + self.width, self._corner[1] + self.height)
        )
        whole = Frame(encoding, width, height, planes, self.note, whole=planes)
        return whole.crop(left, top, right - left, bottom - top)

    def _shrinks(self, n: int, least: tuple[int, int]) -> bool:
        """Return whether it can be decoded at 1/n of its size, no smaller than `least`.

        Sides that are divided without a rest keep pixel centers aligned.
        """
        across, down = self._cell
        left, top = self._corner
        divided = (self.header.width, self.header.height, self.width, self.height)
        return (
            not any(side % n for side in divided)
            and not (left % (n * across) or top % (n * down))
            and self.width >= n * least[0]
            and self.height >= n * least[1]
        )


def from_array(picture: np.ndarray) -> Frame:
    """Make a frame of a uint8 picture: BGR (height, width, 3), BGRA (..., 4) or gray (height, width).

    Raises:
        FrameError: its type or layout is different; the error says how to convert it.

    """
    if not isinstance(picture, np.ndarray):
        raise FrameError(
            "there is no picture: cv2.imread returns None where it cannot read a file"
            if picture is None
            else f"a {type(picture).__name__} is not a numpy array: of a PIL image take "
            "np.asarray(image.convert('RGB'))[..., ::-1], of a torch tensor tensor.numpy()"
        )
    what = f"the array is {picture.dtype} {picture.shape}"
    wanted = (
        "expected uint8 (height, width, 3) BGR, (height, width, 4) BGRA or (height, width) gray"
    )
    if picture.dtype != np.uint8:
        remedy = {
            "f": "scale it to 0..255 and use .astype(np.uint8)",
            "b": "use .astype(np.uint8) * 255",
        }.get(picture.dtype.kind, "scale it to 0..255 (16 bits: // 257) and use .astype(np.uint8)")
        raise FrameError(f"{what}: {wanted}; {remedy}")
    if picture.size == 0:
        raise FrameError(f"{what}, it has no pixels: {wanted}")
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and channels not in (3, 4)):
        remedy = ""
        if picture.ndim == 4:
            remedy = "; give one picture at a time, such as batch[0]"
        elif picture.ndim == 3 and channels == 1:
            remedy = "; use picture[..., 0]"
        elif picture.ndim == 3 and picture.shape[0] in (1, 3, 4):
            remedy = "; channels come last: use .transpose(1, 2, 0)"
        raise FrameError(f"{what}: {wanted}{remedy}")
    if not picture[0].flags.c_contiguous or picture.strides[0] < 0:  # such as rgb[..., ::-1]
        picture = np.ascontiguousarray(picture)
    encoding = {1: "mono8", 3: "bgr8", 4: "bgra8"}[channels]
    return Frame(encoding, picture.shape[1], picture.shape[0], (picture,))


def from_image(message: Any) -> Frame:
    """Read the picture in a sensor_msgs/Image.

    Raises:
        FrameError: size, step, data and encoding do not agree, or the encoding is unknown or needs
            cv_bridge and that is not installed.

    """
    encoding = _SPELLINGS.get(message.encoding.strip().lower(), message.encoding)
    width, height, step = message.width, message.height, message.step
    if width <= 0 or height <= 0:
        raise FrameError(f"the image is {width}x{height}: the camera driver sent no pixels")
    if encoding not in ENCODINGS:
        _refuse_depth(encoding.lower(), message.encoding)
        if not _FOR_CV_BRIDGE.fullmatch(encoding):
            raise FrameError(f"encoding '{encoding}' {_why_not(encoding)}")
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
    note = _padding(len(message.data), rows, step, encoding in _YUV420)

    def plane(*shape: int, first_row: int = 0) -> np.ndarray:
        channels = shape[2] if len(shape) == 3 else 1
        strides = (step, channels, 1)[: len(shape)]
        return np.ndarray(shape, np.uint8, message.data, first_row * step, strides)

    if encoding in _YUV422:
        return Frame(encoding, width, height, (plane(height, even_width, 2),), note)
    if encoding in _YUV420:
        chroma = plane(half_height, even_width // 2, 2, first_row=height)
        return Frame(encoding, width, height, (plane(height, width), chroma), note)
    if encoding in PACKED and encoding != "mono8":
        return Frame(encoding, width, height, (plane(height, width, PACKED[encoding]),), note)
    return Frame(encoding, width, height, (plane(height, width),), note)


def _padding(size: int, rows: int, step: int, planar: bool) -> str:
    """Describe the bytes behind the last row; empty if there are none.

    Rows wider than the step would shear the picture. So only extra bytes that such rows cannot
    explain are accepted: fewer bytes than rows; and, for a single plane, padding to whole pages or
    to a multiple of 16 rows.

    Raises:
        FrameError: the rows may be wider than the step, as cv_bridge refuses it.

    """
    extra = size - rows * step
    if extra <= 0:  # the last row need not be padded
        return ""
    row_padding = any(n and extra % n == 0 for n in (rows, rows - 1))
    rounded = (extra < _PAGE and size % _PAGE == 0) or size == -(-rows // _ROWS) * _ROWS * step
    if extra < min(rows - 1, step) or (rounded and not row_padding and not planar):
        return f"{extra} bytes behind the last row are left out"
    raise FrameError(
        f"data has {size} bytes, but {rows} rows at step {step} have {rows * step}: the rows may be "
        "wider than step says, which would shear the picture. Set step to the bytes from one row to "
        "the next, or let the driver send height * step bytes"
    )


def _why_not(encoding: str) -> str:
    """Return why an unknown encoding is refused; no layout is guessed from the letters of a name."""
    name = encoding.strip().lower()
    if name.split(";")[0] in _CODECS or "compressed" in name:
        return (
            "is a codec: compressed pictures are sensor_msgs/CompressedImage, not Image; let the "
            "driver publish that"
        )
    return (
        f"is {'unknown' if name else 'no encoding'}: let the driver publish one of "
        f"{', '.join(ENCODINGS)}"
    )


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


def from_message(message: Any) -> Frame:
    """Return the frame in a sensor_msgs Image or CompressedImage, from ROS, a bag or CDR.

    Args:
        message: an object with the fields of one of them; only a CompressedImage has `format`.

    Raises:
        FrameError: see `from_image` and `from_compressed`.

    """
    return from_compressed(message) if hasattr(message, "format") else from_image(message)


def from_serialized(message: Serialized) -> Frame:
    """Return the frame in a serialized message; errors as for `from_message`."""
    return from_message(message.message)


def from_compressed(message: Any, max_pixels: int = MAX_PIXELS, *, upright: bool = False) -> Frame:
    """Read the picture in a sensor_msgs/CompressedImage, JPEG or PNG, whatever its format field says.

    A JPEG is decoded when its pixels are needed; see JpegFrame. The format field tells what the
    pixels are: a Bayer mosaic, or RGB instead of BGR.

    Args:
        message: any object with `data` and `format`.
        max_pixels: limit on the decoded size.
        upright: it is a file: turn it according to its EXIF orientation, and of 16 bits a color
            sample take the upper 8. A message keeps the camera's geometry, which camera_info describes.

    Raises:
        FrameError: the data is not JPEG or PNG, is broken or truncated, exceeds `max_pixels`, or is
            not a picture, such as a depth image.

    """
    data = bytes(message.data)
    raw, stored = _read_format(message.format)
    codec: Any = jpeg if data.startswith(jpeg.SIGNATURE) else png
    if not data.startswith(codec.SIGNATURE):
        raise FrameError(_foreign(data, message.format))
    header = codec.parse(data)
    width, height = header.width, header.height
    if not (width and height):
        raise FrameError(
            f"the compressed image ({len(data)} bytes) is {width}x{height}: it is broken"
        )
    if width * height > max_pixels:
        raise FrameError(
            f"the compressed image claims {width}x{height} pixels, more than the {max_pixels} that "
            "are decoded at most"
        )
    frame: Frame
    if isinstance(header, jpeg.Jpeg):
        encoding, note = _encoding(raw, stored, header.is_gray)
        frame = JpegFrame(encoding, width, height, note=note, data=data, header=header)
    else:
        if header.bits == 16 and not (upright and header.is_color):
            raise FrameError(png.DEEP)
        picture = png.decode(data, header)
        encoding, note = _encoding(raw, stored, picture.ndim == 2)
        frame = Frame(encoding, width, height, (picture,), note)
    return turned(frame, header.orientation) if upright and header.orientation != 1 else frame


def _read_format(text: str) -> tuple[str, str]:
    """Return the encodings of the raw and of the stored image in lower case; empty if not given.

    As image_transport writes it: `RAW; CODEC compressed STORED`, or the codec alone.

    Raises:
        FrameError: it is a depth image.

    """
    raw, separator, rest = text.lower().partition(";")
    raw = raw.strip() if separator else ""
    stored = rest.partition("compressed")[2].strip()
    _refuse_depth("16uc1" if "compresseddepth" in text.lower() else raw, text)
    return raw, stored


def _refuse_depth(encoding: str, name: str) -> None:
    """Refuse a depth image, which cv_bridge would not convert either.

    Raises:
        FrameError: it is one; the error calls it `name`.

    """
    if encoding in ("16uc1", "32fc1", "16uc", "32fc"):
        raise FrameError(
            f"'{name}' is a depth image, which no classifier of pictures can take: subscribe to the "
            "camera's color image"
        )


def _encoding(raw: str, stored: str, is_gray: bool) -> tuple[str, str]:
    """Return a compressed picture's encoding by its format field, and a note if color was lost.

    If the field gives the order in which the encoder got the channels, it is trusted, as
    image_transport's own subscriber does; otherwise the order is the raw image's.
    """
    if is_gray:
        if raw in BAYER and stored in ("", raw):  # ROS 1, Foxy, and PNG: the mosaic itself
            return raw, ""
        if raw in BAYER:
            return "mono8", (
                f"'{raw}' was made gray before it was compressed, as image_transport does since ROS 2 "
                "Humble: for color let a debayer node compress its bgr8 picture"
            )
        return "mono8", ""
    rgb = (stored or raw).startswith("rgb")
    return "rgb8" if rgb else "bgr8", ""


def _foreign(data: bytes, format: str) -> str:
    """Return why data that is neither JPEG nor PNG is refused."""
    kind = kind_of(data)
    kind = f"{kind}, " if kind else ""
    remedy = (
        "set the publisher's format to jpeg or png"
        if data
        else "image_transport sends an empty one where it cannot convert the raw image, see its log"
    )
    what = f"the compressed image ('{format}', {len(data)} bytes)"
    return f"{what} is {kind}neither JPEG nor PNG: {remedy}"


def turned(frame: Frame, orientation: int) -> Frame:
    """Turn the frame upright, by its EXIF orientation (2 to 8)."""
    frame = frame.decoded()
    planes = frame.planes
    if orientation in (5, 6, 7, 8):
        planes = tuple(cv2.transpose(plane) for plane in planes)
    # After the transposition, 6 and 8 are mirrored and 5 is already right.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    if flip is not None:
        planes = tuple(cv2.flip(plane, flip) for plane in planes)
    height, width = planes[0].shape[:2]
    note = f"turned as its EXIF orientation {orientation} says"
    return Frame(frame.encoding, width, height, planes, note)
