# SPDX-License-Identifier: Apache-2.0
"""Read serialized sensor_msgs Image and CompressedImage in place: no message, no copied pixels.

The format is CDR (OMG DDSI-RTPS 2.3, section 10.2.1.2) with its encapsulation header, as DDS
delivers it, in either byte order. The result has the fields of the ROS message.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

from repghost_ros.errors import FrameError

HEADER = 4
"""Bytes before the content: representation and options. Alignment counts from their end."""
_LITTLE = b"\x00\x01"
_ORDERS = {_LITTLE: "<", b"\x00\x00": ">"}
_STAMP = {order: struct.Struct(f"{order}iII") for order in _ORDERS.values()}
_THREE = {order: struct.Struct(f"{order}III") for order in _ORDERS.values()}
_TWO = {order: struct.Struct(f"{order}II") for order in _ORDERS.values()}
_ONE = {order: struct.Struct(f"{order}I") for order in _ORDERS.values()}

_HBM_FIELDS = 40
"""Bytes of an Hbm message before its buffer."""


class Time(NamedTuple):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(NamedTuple):
    """std_msgs/Header."""

    stamp: Time
    frame_id: str


class ImageView(NamedTuple):
    """sensor_msgs/Image whose data is a view."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


class CompressedImageView(NamedTuple):
    """sensor_msgs/CompressedImage whose data is a view."""

    header: Header
    format: str
    data: memoryview


class Memory(Protocol):
    """A message's bytes in memory, which this object keeps alive."""

    address: int
    """Of its first byte."""
    size: int
    """In bytes."""

    def view(self) -> memoryview:
        """Its bytes; the memory lasts as long as a view of it exists."""


class Serialized:
    """A message as DDS delivered it, parsed on first use.

    Args:
        raw: with the encapsulation header.
        compressed: whether it is a CompressedImage.

    """

    __slots__ = ("_end", "_fields_end", "_message", "_order", "_raw", "compressed", "memory")

    def __init__(self, raw: bytes | memoryview | Memory, *, compressed: bool) -> None:
        self._raw: memoryview | Memory
        self.memory: Memory | None = None
        """What holds it, where the compiled helper may read it there."""
        if isinstance(raw, (bytes, memoryview)):
            self._raw = memoryview(raw)
        else:
            self._raw = self.memory = raw
        self.compressed = compressed
        self._message: ImageView | CompressedImageView | None = None
        self._end = self._fields_end = 0
        """Of the header, and of the fields that follow it."""

    @property
    def raw(self) -> memoryview:
        """Its bytes, with the encapsulation header."""
        if not isinstance(self._raw, memoryview):
            self._raw = self._raw.view()
        return self._raw

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return len(self.raw) if self.memory is None else self.memory.size

    @property
    def message(self) -> ImageView | CompressedImageView:
        """The message.

        Raises:
            FrameError: the bytes are no such message.

        """
        if self._message is None:
            try:
                self._message = self._read()
            except struct.error as error:
                raise FrameError(
                    f"a serialized image ends after {len(self.raw)} bytes, amid its fields"
                ) from error
        return self._message

    @property
    def header(self) -> Header:
        """The message's header.

        Raises:
            FrameError: the bytes are no such message.

        """
        return self.message.header

    @property
    def serialized_header(self) -> bytes:
        """The header in CDR, little-endian, without an encapsulation header.

        Raises:
            FrameError: the bytes are no such message.

        """
        stamp, frame_id = self.message.header
        if self._order == "<":
            return bytes(self.raw[HEADER : self._end])
        text = frame_id.encode() + b"\0"
        return _STAMP["<"].pack(stamp.sec, stamp.nanosec, len(text)) + text

    @property
    def fields(self) -> bytes:
        """The fields behind the header as they lie there: of a raw image height, width, encoding and
        is_bigendian; of a compressed one its format. Empty before `message` was read.
        """
        return bytes(self.raw[_aligned(self._end) : self._fields_end])

    def _read(self) -> ImageView | CompressedImageView:
        raw = self.raw
        order = self._order = _order(raw)
        sec, nanosec, length = _STAMP[order].unpack_from(raw, HEADER)
        self._end = end = HEADER + 12 + length
        header = Header(Time(sec, nanosec), _text(raw, HEADER + 12, end))
        if self.compressed:
            (length,) = _ONE[order].unpack_from(raw, offset := _aligned(end))
            self._fields_end = offset + 4 + length
            format = _text(raw, offset + 4, self._fields_end)
            return CompressedImageView(header, format, self._data(self._fields_end))
        height, width, length = _THREE[order].unpack_from(raw, offset := _aligned(end))
        end = offset + 12 + length
        encoding = _text(raw, offset + 12, end)
        # One byte, then the next number at its alignment.
        self._fields_end = end + 1
        offset = _aligned(end + 1)
        step, _ = _TWO[order].unpack_from(raw, offset)
        is_bigendian = raw[end]
        data = self._data(offset + 4)
        return ImageView(header, height, width, encoding, is_bigendian, step, data)

    def _data(self, offset: int) -> memoryview:
        offset = _aligned(offset)
        (length,) = _ONE[self._order].unpack_from(self.raw, offset)
        data = self.raw[offset + 4 : offset + 4 + length]
        if len(data) < length:
            raise FrameError(
                f"a serialized image ends after {len(data)} of {length} bytes of data: it is truncated"
            )
        return data


class SerializedHbm(Serialized):
    """hbm_img_msgs/HbmMsg*, the RDK's shared-memory image, with the field names of sensor_msgs/Image.

    It has a fixed-size buffer and no std_msgs/Header; its index becomes the frame_id, as in the
    RDK's own nodes.

    Args:
        raw: with the encapsulation header.

    """

    __slots__ = ()

    def __init__(self, raw: bytes | memoryview | Memory) -> None:
        # The compiled helper reads sensor_msgs alone.
        held = raw if isinstance(raw, (bytes, memoryview)) else raw.view()
        super().__init__(held, compressed=False)

    @property
    def serialized_header(self) -> bytes:
        """The header in CDR, little-endian, without an encapsulation header."""
        stamp, frame_id = self.message.header
        text = frame_id.encode() + b"\0"
        return _STAMP["<"].pack(stamp.sec, stamp.nanosec, len(text)) + text

    def _read(self) -> ImageView:
        raw = self.raw
        order = self._order = _order(raw)
        index, sec, nanosec, height, width, size, step, name = struct.unpack_from(
            f"{order}iiIIIII12s", raw, HEADER
        )
        start = HEADER + _HBM_FIELDS
        data = raw[start : start + size]
        if len(data) < size:
            raise FrameError(f"data_size is {size}, but the message's buffer has {len(data)} bytes")
        encoding = name.partition(b"\0")[0].decode("ascii", "replace")
        header = Header(Time(sec, nanosec), str(index))
        return ImageView(header, height, width, encoding, 0, step or width, data)


def _order(raw: memoryview) -> str:
    """Return the byte order of a serialized message, `<` or `>`."""
    order = _ORDERS.get(bytes(raw[:2]))
    if order is None:
        raise FrameError(
            f"a serialized image begins with {raw[:HEADER].hex(' ') or 'nothing'}: this is not CDR"
        )
    return order


def _aligned(offset: int) -> int:
    return HEADER + (offset - HEADER + 3 & ~3)


def _text(raw: memoryview, start: int, end: int) -> str:
    text = bytes(raw[start:end])
    if len(text) < end - start:
        raise FrameError(f"a serialized image ends after {len(raw)} bytes, amid a text")
    return text.removesuffix(b"\0").decode(errors="replace")
