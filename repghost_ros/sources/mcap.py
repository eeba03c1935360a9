# SPDX-License-Identifier: Apache-2.0
"""MCAP files, complete or not: what the index does not list is found by reading from the start."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from repghost_ros.errors import need
from repghost_ros.sources.storage import Channel, Message, decompressed, in_order, ros2_type

INSTALL = "pip install mcap"
MAGIC = b"\x89MCAP0\r\n"
_HEAD = struct.Struct("<BQ")  # opcode and length of a record
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, times of recording and publication
_FOOTER_BYTES = _HEAD.size + 20 + len(MAGIC)


class McapFile:
    """A Storage.

    Message indices are not used, because some writers omit all or some of them.

    Raises:
        DependencyError: the mcap package is missing.
        ValueError: it is not an MCAP file.

    """

    def __init__(self, path: Path) -> None:
        self._records = need("mcap.records", INSTALL)
        self._opcodes = need("mcap.opcode", INSTALL).Opcode
        self._stream = need("mcap.data_stream", INSTALL).ReadDataStream
        self._file = path.open("rb")
        self.damage: list[str] = []
        self._schemas: dict[int, Any] = {}
        self._channels: dict[int, Any] = {}
        self._counts: Counter[int] = Counter()
        self._blocks: list[tuple[int, int]] = []
        self._size = path.stat().st_size
        if self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            raise ValueError("it is not an MCAP file")
        if not self._read_summary():
            self._scan()

    @property
    def channels(self) -> list[Channel]:
        """All recorded channels."""
        found = []
        for channel in self._channels.values():
            schema = self._schemas.get(channel.schema_id)
            kind = ros2_type(schema.name) if schema else "without a schema"
            count = self._counts[channel.id]
            found.append(Channel(channel.id, channel.topic, kind, channel.message_encoding, count))
        return found

    def messages(self, channels: Iterable[Channel]) -> Iterator[Message]:
        """Yield the messages of these channels in recording order, as far as they can be read."""
        wanted = {channel.id: channel for channel in channels}

        def read(offset: int) -> Iterator[Message]:
            for opcode, body in self._block(offset):
                if opcode == self._opcodes.MESSAGE:
                    channel_id, _, time_ns, _ = _MESSAGE.unpack_from(body)
                    if channel_id in wanted:
                        yield wanted[channel_id], time_ns, body[_MESSAGE.size :]

        yield from in_order(self._blocks, read)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_summary(self) -> bool:
        """Return whether the summary at the end of the file lists all channels and chunks."""
        records, opcodes = self._records, self._opcodes
        try:
            opcode, footer = self._record_at(self._size - _FOOTER_BYTES)
            start = self._parse(records.Footer, footer).summary_start
            if opcode != opcodes.FOOTER or not start:
                return False
            statistics, schemas, channels, blocks = None, {}, {}, []
            offset = start
            while opcode != opcodes.FOOTER or offset == start:
                opcode, body = self._record_at(offset)
                offset += _HEAD.size + len(body)
                if opcode == opcodes.STATISTICS:
                    statistics = self._parse(records.Statistics, body)
                elif opcode == opcodes.SCHEMA:
                    schema = self._parse(records.Schema, body)
                    schemas[schema.id] = schema
                elif opcode == opcodes.CHANNEL:
                    channel = self._parse(records.Channel, body)
                    channels[channel.id] = channel
                elif opcode == opcodes.CHUNK_INDEX:
                    chunk = self._parse(records.ChunkIndex, body)
                    blocks.append((chunk.message_start_time, chunk.chunk_start_offset))
        except Exception:  # the parser raises many types for an invalid summary
            return False
        if statistics is None or sum(statistics.channel_message_counts.values()) != (
            statistics.message_count
        ):
            return False
        is_complete = (
            len(schemas) == statistics.schema_count
            and len(channels) == statistics.channel_count
            and len(blocks) == statistics.chunk_count
        )
        if not is_complete or (statistics.message_count and not blocks):
            return False
        self._schemas, self._channels, self._blocks = schemas, channels, blocks
        self._counts.update(statistics.channel_message_counts)
        return True

    def _scan(self) -> None:
        """Read the file from its start to its end, or to where it is cut off."""
        opcodes, offset = self._opcodes, len(MAGIC)
        ends = (opcodes.DATA_END, opcodes.FOOTER)
        while True:
            opcode, length = self._head_at(offset)
            if opcode in ends:
                return
            following = offset + _HEAD.size + length
            if opcode == opcodes.CHUNK:
                self._scan_chunk(offset)
            elif following <= self._size and opcode == opcodes.MESSAGE:
                channel_id, _, time_ns, _ = _MESSAGE.unpack(self._file.read(_MESSAGE.size))
                self._counts[channel_id] += 1
                self._blocks.append((time_ns, offset))
            elif following <= self._size and opcode in (opcodes.SCHEMA, opcodes.CHANNEL):
                self._define(opcode, self._file.read(length))
            if following > self._size or not opcode:
                self.damage.append(f"the file breaks off at byte {offset} of {self._size}")
                return
            offset = following

    def _scan_chunk(self, offset: int) -> None:
        found, times = False, []
        for opcode, body in self._block(offset):
            found = True
            if opcode == self._opcodes.MESSAGE:
                channel_id, _, time_ns, _ = _MESSAGE.unpack_from(body)
                self._counts[channel_id] += 1
                times.append(time_ns)
            else:
                self._define(opcode, body)
        if found:
            self._blocks.append((min(times, default=0), offset))

    def _define(self, opcode: int, body: bytes) -> None:
        if opcode == self._opcodes.SCHEMA:
            schema = self._parse(self._records.Schema, body)
            self._schemas[schema.id] = schema
        elif opcode == self._opcodes.CHANNEL:
            channel = self._parse(self._records.Channel, body)
            self._channels[channel.id] = channel

    def _block(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Opcode and content of every whole record of the chunk, or of the message, at an offset."""
        opcode, length = self._head_at(offset)
        body = self._file.read(min(length, self._size))
        if opcode == self._opcodes.MESSAGE:
            yield opcode, body
            return
        try:
            if opcode != self._opcodes.CHUNK:
                raise ValueError("something else is there")
            chunk = self._parse(self._records.Chunk, body)
            data = decompressed(chunk.compression, chunk.data)
            if len(body) == length:  # a truncated chunk is valid up to the cut
                if len(data) != chunk.uncompressed_size:
                    raise ValueError("it cannot be decompressed")
                if chunk.uncompressed_crc not in (0, zlib.crc32(data)):
                    raise ValueError("its checksum is wrong")
        except (ValueError, struct.error, self._end_of_file()) as error:
            self._damaged(offset, str(error) or "it breaks off")
            return
        at = 0
        while at + _HEAD.size <= len(data):
            opcode, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if at + length > len(data):
                return
            yield opcode, data[at : at + length]
            at += length

    def _damaged(self, offset: int, reason: str) -> None:
        damage = f"the chunk at byte {offset} cannot be read: {reason}"
        if damage not in self.damage:  # without an index, blocks are read twice
            self.damage.append(damage)

    def _record_at(self, offset: int) -> tuple[int, bytes]:
        opcode, length = self._head_at(offset)
        if offset < 0 or offset + _HEAD.size + length > self._size:
            raise ValueError("there is no record")
        return opcode, self._file.read(length)

    def _head_at(self, offset: int) -> tuple[int, int]:
        """Opcode and length of a record; 0 and 0 where the file ends."""
        self._file.seek(max(0, offset))
        head = self._file.read(_HEAD.size)
        opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        return opcode, length

    def _parse(self, kind: Any, body: bytes) -> Any:
        return kind.read(self._stream(BytesIO(body)))

    def _end_of_file(self) -> Any:
        return need("mcap.exceptions", INSTALL).EndOfFile
