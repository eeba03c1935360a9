# SPDX-License-Identifier: Apache-2.0
"""Common parts of the readers of all kinds of bags: channels, damage, and the order of recording."""

from __future__ import annotations

import bz2
import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from repghost_ros.errors import need

COMPRESSION = "pip install lz4 zstandard"
_PIECE = 1 << 20  # bytes
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Channel:
    """One publisher's messages on one topic."""

    id: int
    topic: str
    type: str
    """As ROS 2 writes it, such as `sensor_msgs/msg/Image`."""
    encoding: str
    """`cdr` or `ros1`; anything else cannot be read here."""
    messages: int
    """As many as the file says there are, or else as were found."""


Message = tuple[Channel, int, bytes]
"""Channel, time of recording in nanoseconds, serialized message."""


class Storage(Protocol):
    """An opened file of a bag, or several."""

    @property
    def channels(self) -> list[Channel]:
        """All recorded channels."""

    @property
    def damage(self) -> list[str]:
        """The parts that cannot be read, and why; grows while messages are read."""

    def messages(self, channels: Iterable[Channel]) -> Iterator[Message]:
        """Yield the messages of these channels in recording order, as far as they can be read."""

    def close(self) -> None:
        """Release the files."""


def ros2_type(name: str) -> str:
    """Return a message type as ROS 2 writes it; converters write `sensor_msgs/Image` and DDS names."""
    parts = re.split(r"/|::", name)
    if "dds_" in parts:
        parts = [part.rstrip("_") for part in parts if part != "dds_"]
    if len(parts) == 2:
        parts.insert(1, "msg")
    return "/".join(parts)


def in_order(
    blocks: Iterable[tuple[int, int]], read: Callable[[int], Iterable[Message]]
) -> Iterator[Message]:
    """Messages in recording order from blocks that may overlap; few blocks are held in memory.

    Args:
        blocks: time of the first message in nanoseconds, and position, of every block.
        read: the messages of the block at a position.

    """
    waiting: list[tuple[int, int, int, Message | None]] = [
        (time_ns, position, -1, None) for time_ns, position in blocks
    ]
    heapq.heapify(waiting)
    while waiting:
        _, position, _, message = heapq.heappop(waiting)
        if message is not None:
            yield message
            continue
        for number, message in enumerate(read(position)):
            heapq.heappush(waiting, (message[1], position, number, message))


def decompressed(compression: str, data: bytes) -> bytes:
    """As much of the data as can be decompressed: all of it, or the part before the damage.

    Raises:
        ValueError: the compression is unknown.
        DependencyError: the package that decompresses it is not installed.

    """
    if compression in ("", "none"):
        return data
    if compression == "zstd":
        decompressor: Any = need("zstandard", COMPRESSION).ZstdDecompressor().decompressobj()
    elif compression == "lz4":
        decompressor = need("lz4.frame", COMPRESSION).LZ4FrameDecompressor()
    elif compression == "bz2":
        decompressor = bz2.BZ2Decompressor()
    else:
        raise ValueError(f"compression '{compression}' is not supported")
    pieces = []
    try:
        for start in range(0, len(data), _PIECE):
            pieces.append(decompressor.decompress(data[start : start + _PIECE]))
    except Exception:  # each library raises its own type; the caller sees how much is missing
        pass
    return b"".join(pieces)
