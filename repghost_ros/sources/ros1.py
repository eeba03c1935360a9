# SPDX-License-Identifier: Apache-2.0
"""ROS 1 bags (format 2.0), complete or not: without an index they are read from the start."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from repghost_ros.sources.storage import Channel, Message, decompressed, in_order, ros2_type

MAGIC = b"#ROSBAG V"
_VERSION = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 5, 6, 7
_UINT32 = struct.Struct("<I")
Fields = dict[bytes, bytes]


class Ros1File:
    """A Storage.

    Raises:
        ValueError: it has another version, or is encrypted.

    """

    def __init__(self, path: Path) -> None:
        self.damage: list[str] = []
        self.channels: list[Channel] = []
        self._connections: dict[int, tuple[str, str]] = {}
        self._counts: Counter[int] = Counter()
        self._blocks: list[tuple[int, int]] = []
        self._size = path.stat().st_size
        self._file = path.open("rb")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        version = self._file.read(len(_VERSION))
        if version != _VERSION:
            raise ValueError(f"its version is {version.strip()!r}: rosbag migrate makes it V2.0")
        try:
            header, _, _ = self._record_at(len(_VERSION))
        except ValueError:
            header = {}
        if header.get(b"encryptor"):
            raise ValueError(f"it is encrypted by {header[b'encryptor']!r}")
        if not self._read_index(header):
            self.damage.append("it has no usable index: its recorder did not end, or it is cut")
            self._scan()
        for number, (topic, kind) in self._connections.items():
            self.channels.append(Channel(number, topic, kind, "ros1", self._counts[number]))

    def messages(self, channels: Iterable[Channel]) -> Iterator[Message]:
        """Yield the messages of these channels in recording order, as far as they can be read."""
        wanted = {channel.id: channel for channel in channels}

        def read(offset: int) -> Iterator[Message]:
            for fields, data in self._block(offset):
                if fields.get(b"op") == bytes([_MESSAGE]):
                    connection = _UINT32.unpack(fields[b"conn"])[0]
                    if connection in wanted:
                        yield wanted[connection], _time(fields[b"time"]), data

        yield from in_order(self._blocks, read)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_index(self, header: Fields) -> bool:
        """Return whether the index at the end of the file lists all connections and chunks."""
        try:
            offset = struct.unpack("<Q", header[b"index_pos"])[0]
            announced = tuple(_UINT32.unpack(header[n])[0] for n in (b"conn_count", b"chunk_count"))
            if not offset:
                return False
            while offset < self._size:
                fields, data, offset = self._record_at(offset)
                if fields[b"op"] == bytes([_CONNECTION]):
                    self._connect(fields, data)
                elif fields[b"op"] == bytes([_CHUNK_INFO]):
                    position = struct.unpack("<Q", fields[b"chunk_pos"])[0]
                    self._blocks.append((_time(fields[b"start_time"]), position))
                    for connection, count in struct.iter_unpack("<II", data):
                        self._counts[connection] += count
            if announced == (len(self._connections), len(self._blocks)):
                return True
        except (ValueError, KeyError, struct.error):
            pass
        self._connections.clear()
        self._blocks.clear()
        self._counts.clear()
        return False

    def _scan(self) -> None:
        offset = len(_VERSION)
        while offset < self._size:
            try:
                fields, data, following = self._record_at(offset, partly=True)
            except ValueError:
                following = self._size + 1
            else:
                if fields.get(b"op") == bytes([_CHUNK]):
                    self._scan_chunk(offset)
                elif fields.get(b"op") == bytes([_CONNECTION]) and following <= self._size:
                    self._connect(fields, data)
            if following > self._size:
                self.damage.append(f"the file breaks off at byte {offset} of {self._size}")
                return
            offset = following

    def _scan_chunk(self, offset: int) -> None:
        times = []
        for fields, data in self._block(offset):
            if fields.get(b"op") == bytes([_MESSAGE]):
                self._counts[_UINT32.unpack(fields[b"conn"])[0]] += 1
                times.append(_time(fields[b"time"]))
            elif fields.get(b"op") == bytes([_CONNECTION]):
                self._connect(fields, data)
        if times:
            self._blocks.append((min(times), offset))

    def _connect(self, fields: Fields, data: bytes) -> None:
        about = _fields(data)
        name = fields[b"topic"].decode()
        topic = "/".join(part for part in name.split("/") if part)
        self._connections[_UINT32.unpack(fields[b"conn"])[0]] = (
            "/" + topic if name.startswith("/") else topic,
            ros2_type(about[b"type"].decode()),
        )

    def _block(self, offset: int) -> Iterator[tuple[Fields, bytes]]:
        """Header and data of every whole record of the chunk at an offset."""
        try:
            fields, content, following = self._record_at(offset, partly=True)
            if fields.get(b"op") != bytes([_CHUNK]):
                raise ValueError("something else is there")
            content = decompressed(fields[b"compression"].decode(), content)
            whole = _UINT32.unpack(fields[b"size"])[0]
            # A truncated chunk is valid up to the cut.
            if following <= self._size and len(content) != whole:
                raise ValueError("it cannot be decompressed")
            at = 0
            while at < len(content):
                try:
                    header, at = _sized(content, at)
                    data, at = _sized(content, at)
                except ValueError:
                    if following <= self._size:
                        raise
                    return
                yield _fields(header), data
        except (ValueError, KeyError, struct.error) as error:
            reason = f"the chunk at byte {offset} cannot be read: {error}"
            if reason not in self.damage:  # without an index, blocks are read twice
                self.damage.append(reason)

    def _record_at(self, offset: int, *, partly: bool = False) -> tuple[Fields, bytes, int]:
        """Header and data of a record, and where it ends; `partly`: its data may be cut off.

        Raises:
            ValueError: there is none.

        """
        self._file.seek(offset)
        header = self._file.read(self._length())
        start = self._file.tell() + _UINT32.size
        length = self._length()
        following = start + length
        if following > self._size and not partly:
            raise ValueError("the file breaks off")
        return _fields(header), self._file.read(min(length, self._size)), following

    def _length(self) -> int:
        size = self._file.read(_UINT32.size)
        if len(size) < _UINT32.size:
            raise ValueError("the file breaks off")
        length: int = _UINT32.unpack(size)[0]
        return min(length, self._size)


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes behind a length field, and the offset of their end."""
    if at + _UINT32.size > len(data):
        raise ValueError("it breaks off")
    end = at + _UINT32.size + _UINT32.unpack_from(data, at)[0]
    if end > len(data):
        raise ValueError("it breaks off")
    return data[at + _UINT32.size : end], end


def _fields(header: bytes) -> Fields:
    fields, at = {}, 0
    while at < len(header):
        field, at = _sized(header, at)
        name, equals, value = field.partition(b"=")
        if not equals:
            raise ValueError("a header makes no sense")
        fields[name] = value
    return fields


def _time(value: bytes) -> int:
    seconds, nanoseconds = struct.unpack("<II", value)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
