# SPDX-License-Identifier: Apache-2.0
"""JPEG as cameras send it: where the picture really ends, and whether it is complete.

Drivers publish buffers of a fixed size, so zeros or the rest of an older frame follow the end;
phones append a video; firmware leaves stray bytes between segments or forgets the end marker.
Decoders accept all of that, but they also decode a truncated JPEG, to a picture with a gray end. So
the segments are walked (ITU-T T.81, annex B) to the true end. libturbojpeg tells whether data was
missing. OpenCV does not: where its picture may be incomplete, it is decoded a second time with other
bytes behind its data, and rows that change are missing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import cv2
import numpy as np

from repghost_ros.errors import FrameError
from repghost_ros.vision import turbojpeg

SIGNATURE = b"\xff\xd8\xff"
FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""Grey stays one channel, deeper samples become 8 bits, and nothing is turned."""
SHRINKS = (1, 2, 4, 8)
"""A JPEG can be decoded at one over these of its size: each block's mean frequencies alone."""

_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = b"\xff\xd9"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 but for the tables among them
_AFTER_SCAN = {0xC4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
_PROCESSES = {
    0xC3: "lossless",
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical"),
    **dict.fromkeys(range(0xC9, 0xD0), "arithmetically coded"),
}
"""What OpenCV may lack a decoder for, by the marker of the frame header."""
_REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_LOSSES = ("premature end", "bad Huffman code", "instead of RST")
"""In a warning of libjpeg: picture data is missing or wrong."""
# Decoded as picture data, it changes any block that it reaches: libjpeg itself puts zeros there.
_NOISE = b"\xfe" + bytes(np.random.default_rng(0).integers(0, 255, 1024, np.uint8))


@dataclass
class Jpeg:
    """The information in a JPEG's segments."""

    width: int = 0
    """Pixels."""
    height: int = 0
    """Pixels."""
    end: int = 0
    """Bytes up to the end-of-image marker and with it, or up to where the picture's data stops."""
    closed: bool = False
    """There is an end-of-image marker."""
    orientation: int = 1
    """EXIF orientation, 1 (upright) to 8."""
    interval: int = 0
    """MCUs between two restart markers; 0: there are none."""
    frame_header: bytes = b""
    """The whole SOF segment: size and sampling."""
    _process: int = 0
    """Marker of the frame header."""
    _precision: int = 8
    _components: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Sampling factors, horizontal and vertical, by identifier."""
    _scans: list[tuple[int, int]] = field(default_factory=list)
    """Where the data of each begins and ends."""
    _missing_bits: dict[tuple[int, int], int] = field(default_factory=dict)
    """Progressive: low bits not yet sent, by component and coefficient."""

    @property
    def cell(self) -> tuple[int, int]:
        """Pixels across and down that share chroma."""
        if self.is_gray:
            return 1, 1
        horizontal, vertical = zip(*self._components.values(), strict=True)
        return max(horizontal), max(vertical)

    def read_frame_header(self, marker: int, body: bytes) -> None:
        """Read a SOF segment."""
        if len(body) < 6 or len(body) < 6 + 3 * body[5]:
            raise FrameError("the JPEG's frame header is broken")
        self._process = marker
        self.frame_header = struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body
        self._precision, self.height, self.width, count = struct.unpack(">BHHB", body[:6])
        for at in range(6, 6 + 3 * count, 3):
            self._components[body[at]] = (body[at + 1] >> 4 or 1, body[at + 1] & 15 or 1)

    def read_scan_header(self, body: bytes) -> None:
        """Read a SOS segment."""
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            raise FrameError("a scan header of the JPEG is broken")
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        for component in body[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                self._missing_bits[component, coefficient] = bits & 15

    @property
    def is_gray(self) -> bool:
        """True if it has one component."""
        return len(self._components) == 1

    @property
    def is_cmyk(self) -> bool:
        """Return whether it has four components, for CMYK or YCCK."""
        return len(self._components) > 3

    @property
    def all_scans_are_there(self) -> bool:
        """True if all components are there; in progressive JPEGs, all coefficients to the last bit."""
        if self._process not in (0xC2, 0xC6, 0xCA, 0xCE):
            return {component for component, _ in self._missing_bits} >= set(self._components)
        wanted = [(component, n) for component in self._components for n in range(64)]
        return all(self._missing_bits.get(key, 1) == 0 for key in wanted)

    @property
    def intervals(self) -> int:
        """Return the number of restart intervals in a scan of all components; 0: it has none."""
        if not self.interval:
            return 0
        width, height = (8 * side for side in self.cell)  # of an MCU
        units = -(-self.width // width) * -(-self.height // height)
        return -(-units // self.interval)

    def lost_intervals(self, data: bytes) -> tuple[int, int]:
        """Restart intervals missing between the first and the last, and the expected number."""
        wanted = self.intervals if len(self._scans) == 1 else 0
        if not wanted:
            return 0, 0
        start, end = self._scans[0]
        return max(0, wanted - 1 - len(_RESTART.findall(data, start, end))), wanted

    def data_without_end(self, data: bytes) -> bytes:
        """Return the data up to the end of the last scan, without padding."""
        data = data[: self._scans[-1][1]]
        return data if self.closed else self.without_padding(data)

    def without_padding(self, data: bytes) -> bytes:
        """Return the data up to the end of the last scan, without zeros that cannot belong to it."""
        data = data[: self._scans[-1][1]]
        bare = len(data.rstrip(b"\0"))
        # Two zeros may belong to the scan; half a marker would end it whatever follows.
        return data[: bare + 2].rstrip(b"\xff")

    def ended(self, data: bytes) -> bytes:
        """Return the data up to the picture's end, with an end marker."""
        return data[: self.end] if self.closed else self.data_without_end(data) + _END

    def may_lack(self, planes: tuple[np.ndarray, ...]) -> bool:
        """Return whether they end in libjpeg's filler for missing data: gray, another color in CMYK."""
        corners = [plane[-1, -4:] for plane in planes]
        return all(
            bool((corner == (corner[:1] if self.is_cmyk else 128)).all()) for corner in corners
        )

    def explain(self) -> str:
        """Return why OpenCV may fail to decode it."""
        if self._precision != 8:
            return f"it has {self._precision} bits a sample: publish 8"
        kind = _PROCESSES.get(self._process)
        return f"it is {kind}: publish baseline JPEG" if kind else "its data is broken"

    def rows_above(self, row: int) -> int:
        """Whole rows of MCUs that end above a row of pixels, in pixels."""
        # Interpolated chroma shows a difference one row early.
        height = 8 * self.cell[1]
        return (row + 1) // height * height


def parse(data: bytes) -> Jpeg:
    """Walk through a JPEG's segments to its end.

    Raises:
        FrameError: it ends, or is broken, before any picture data.

    """
    jpeg = Jpeg()
    position = 2
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == 0xD9:
            jpeg.closed, jpeg.end = True, position
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # these segments have no length
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if marker == 0xD8 or length < 2:  # the next picture, or garbage
            break
        body, position = data[position + 2 : position + length], position + length
        if position > len(data):
            if jpeg._scans:  # data behind the picture does not matter
                break
            raise FrameError(
                f"the JPEG of {len(data)} bytes is truncated in its header: at least "
                f"{position - len(data)} more bytes and all of the picture are missing"
            )
        if marker in _FRAMES and not jpeg._process:
            jpeg.read_frame_header(marker, body)
        elif marker == 0xDD and len(body) >= 2:
            jpeg.interval = int.from_bytes(body[:2], "big")
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            jpeg.orientation = exif_orientation(body[6:])
        elif marker == 0xDA:
            jpeg.read_scan_header(body)
            end = _SCAN_END.search(data, position)
            jpeg.end = end.start() if end else len(data)
            jpeg._scans.append((position, jpeg.end))
            if end is None or data[jpeg.end + 1] not in _AFTER_SCAN:
                break
            position = jpeg.end
    if not jpeg._process or not jpeg._scans:
        raise FrameError(
            f"the JPEG of {len(data)} bytes is truncated or broken: it ends before its picture data"
        )
    return jpeg


def decode(
    data: bytes, jpeg: Jpeg, shrink: int = 1, *, yuv: bool = False
) -> tuple[np.ndarray, ...]:
    """Decode the picture, as the camera took it.

    Args:
        data: the JPEG, whatever follows it.
        jpeg: its `parse` result.
        shrink: one of SHRINKS that divides width and height. Without libturbojpeg, a JPEG that may be
            incomplete is decoded at its full size nevertheless.
        yuv: planes of Y, U and V are welcome, if libturbojpeg can give them.

    Returns:
        One uint8 array: BGR (height // shrink, width // shrink, 3), or without the last axis if the
        JPEG is gray. Or three, Y, U and V of full-range BT.601: Y (height // shrink, width // shrink),
        the others as large or smaller.

    Raises:
        FrameError: it cannot be decoded, or a part of the picture is missing.

    """
    decoded = turbojpeg.decode(jpeg.ended(data), shrink) if yuv or jpeg.is_gray else None
    planes: tuple[np.ndarray, ...]
    if decoded is None or decoded.planes[0].shape != (jpeg.height // shrink, jpeg.width // shrink):
        planes, loss = (_by_opencv(data, jpeg, shrink),), ""
    else:
        planes, loss = decoded.planes, _loss(data, jpeg, decoded)
    lost, intervals = jpeg.lost_intervals(data)
    if lost:
        raise FrameError(
            f"the JPEG is damaged: {lost} of its {intervals} restart intervals were lost on the way"
        )
    if loss:
        raise FrameError(f"the JPEG is truncated or damaged, libjpeg says: {loss}")
    return planes


def _loss(data: bytes, jpeg: Jpeg, decoded: turbojpeg.Decoded) -> str:
    """Return libjpeg's warning of missing data; empty if none is missing.

    Raises:
        FrameError: the same, where it can be said how much is missing.

    """
    loss = _told(decoded)
    if not loss and "extraneous" in decoded.warning and jpeg.closed:
        # Zeros in front of the end marker may have been decoded in the place of lost data.
        loss = _told(turbojpeg.decode(jpeg.without_padding(data) + _END, 8))
    # libjpeg tells its first warning only: a harmless one may hide another.
    hidden = decoded.warning and (not jpeg.closed or jpeg.may_lack(decoded.planes))
    complete = jpeg.all_scans_are_there
    if loss or hidden or not (jpeg.closed or complete):
        bare = jpeg.without_padding(data)
        _check(bare, _imdecode(bare + _END, jpeg), jpeg)
    return loss or ("" if complete else decoded.warning)


def _told(decoded: turbojpeg.Decoded | None) -> str:
    """Return the warning if it is one of a loss."""
    warning = decoded.warning if decoded is not None else ""
    return warning if any(each in warning for each in _LOSSES) else ""


def _by_opencv(data: bytes, jpeg: Jpeg, shrink: int) -> np.ndarray:
    """Decode a complete picture."""
    if shrink > 1 and jpeg.closed:
        picture = _imdecode(data[: jpeg.end], jpeg, shrink)
        if not jpeg.may_lack((picture,)):
            return picture
    picture = _imdecode(jpeg.ended(data), jpeg)
    # Decoding it again makes OpenCV's libjpeg print a warning even where nothing is wrong.
    flawless = jpeg.is_cmyk and turbojpeg.is_flawless_cmyk(data, jpeg.width, jpeg.height)
    if not flawless and (not jpeg.closed or jpeg.may_lack((picture,))):
        _check(jpeg.data_without_end(data), picture, jpeg)
    return picture


def _imdecode(data: bytes, jpeg: Jpeg, shrink: int = 1) -> np.ndarray:
    flags = FLAGS
    if shrink > 1:
        flags = _REDUCED[shrink] | cv2.IMREAD_IGNORE_ORIENTATION
        flags |= 0 if jpeg.is_gray else cv2.IMREAD_COLOR
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f"the JPEG cannot be decoded: {error}") from error
    size = (jpeg.height // shrink, jpeg.width // shrink)
    if picture is None or picture.shape[:2] != size or (picture.ndim == 2) != jpeg.is_gray:
        raise FrameError(f"the JPEG of {len(data)} bytes cannot be decoded: {jpeg.explain()}")
    return picture


def _check(bare: bytes, picture: np.ndarray, jpeg: Jpeg) -> None:
    """Refuse a picture that depends on the bytes behind its data."""
    other = _imdecode(bare + _NOISE + _END, jpeg)
    rows = np.flatnonzero((picture != other).reshape(jpeg.height, -1).any(axis=1))
    scans = len(jpeg._scans)
    if rows.size and scans == 1:
        whole = jpeg.rows_above(int(rows[0]))
        raise FrameError(
            f"the JPEG is truncated: its {len(bare)} bytes hold {whole} of {jpeg.height} rows"
        )
    if rows.size or not (jpeg.closed or jpeg.all_scans_are_there):
        raise FrameError(
            f"the JPEG is truncated: its {len(bare)} bytes end in or behind scan {scans}, and more "
            "were to follow"
        )


def exif_orientation(tiff: bytes) -> int:
    """Return the orientation that EXIF data gives, 1 (upright, or none given) to 8.

    Args:
        tiff: the EXIF data from its byte order mark (`II` or `MM`) on.

    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    at = struct.unpack(f"{order}I", tiff[4:8])[0]
    count = struct.unpack(f"{order}H", tiff[at : at + 2])[0] if len(tiff) >= at + 2 else 0
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if len(tiff) < entry + 12:
            break
        tag, value = (
            *struct.unpack(f"{order}H", tiff[entry : entry + 2]),
            tiff[entry + 8 : entry + 10],
        )
        if tag == 0x0112:
            orientation: int = struct.unpack(f"{order}H", value)[0]
            return orientation if 1 <= orientation <= 8 else 1
    return 1
