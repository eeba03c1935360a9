# SPDX-License-Identifier: Apache-2.0
"""Images and classifications from ROS 1 and ROS 2 bags, without ROS."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from repghost_ros.errors import FrameError, RepghostError, SourceError
from repghost_ros.sources.ros2 import Folder, open_storage
from repghost_ros.sources.storage import ZSTD_MAGIC, Channel, Message, Storage, decompressed
from repghost_ros.sources.types import (
    CLASSIFICATIONS,
    COMPRESSED,
    DETECTIONS,
    FOXY_DEFINITIONS,
    IMAGE,
    TARGETS,
    typestore,
)
from repghost_ros.vision.frame import Frame, from_message

_log = logging.getLogger(__name__)
_RESCUE = "what broke off may be repaired: ros2 bag reindex, mcap recover, rosbag reindex"
_ENCODINGS = ("cdr", "ros1")
_READ = (IMAGE, COMPRESSED, *CLASSIFICATIONS, DETECTIONS, TARGETS)
_SHOWN = 3  # kinds of damage that an error lists


@dataclass(frozen=True)
class Recorded:
    """One message of a bag."""

    topic: str
    time_ns: int
    """When it was recorded, nanoseconds."""
    message: Any
    """Has the fields of the ROS message; None where it cannot be read."""
    error: str = ""
    """Why it cannot be read."""

    @property
    def stamp_ns(self) -> int:
        """The header's stamp in nanoseconds; the time of recording if the header cannot be read."""
        if self.message is None:
            return self.time_ns
        stamp = self.message.header.stamp
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

    @property
    def frame_id(self) -> str:
        """The header's frame_id."""
        return "" if self.message is None else str(self.message.header.frame_id)

    def frame(self) -> Frame:
        """Read the picture of an Image or CompressedImage.

        Raises:
            FrameError: it cannot be read, or its encoding is unknown.

        """
        if self.message is None:
            raise FrameError(f"the message cannot be read: {self.error}")
        return from_message(self.message)


@dataclass(frozen=True)
class BagTopic:
    """One topic of a bag."""

    name: str
    type: str
    messages: int


class Bag(AbstractContextManager["Bag"]):
    """An opened bag; use it in a `with` statement. Nothing is written to it or beside it.

    Args:
        path: a ROS 1 .bag, a ROS 2 bag's folder, or an .mcap or .db3 file of one.

    Raises:
        SourceError: there is no readable bag.
        DependencyError: what reads it is not installed.

    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SourceError(f"bag '{path}' does not exist")
        self.path = path
        self._types = typestore()
        with ExitStack() as opened:
            try:
                self._storage: Storage = open_storage(path, opened)
            except (RepghostError, MemoryError):
                raise
            except Exception as error:  # broken bags cause many
                reason = str(error).strip() or type(error).__name__
                raise SourceError(f"bag '{path}' cannot be read as a bag: {reason}") from error
            self._opened = opened.pop_all()

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def topics(self, *types: str) -> list[BagTopic]:
        """Return the topics that have these types, by name."""
        counts: Counter[tuple[str, str]] = Counter()
        for channel in self._storage.channels:  # a topic may have had several publishers
            if channel.type in types and channel.encoding in _ENCODINGS:
                counts[channel.topic, channel.type] += channel.messages
        return [BagTopic(*key, count) for key, count in sorted(counts.items())]

    def image_topic(self, wanted: str = "") -> BagTopic:
        """Return the topic to classify: the requested one, or else the only one with images.

        Raises:
            SourceError: the topic holds no images, or it is ambiguous; the error lists the topics.

        """
        topics = {topic.name: topic for topic in self.topics(IMAGE, COMPRESSED)}
        listed = ", ".join(f"{t.name} ({t.type}, {t.messages} messages)" for t in topics.values())
        if not topics:
            others = sorted({f"{c.topic} ({c.type}, {c.encoding})" for c in self._storage.channels})
            held = f"only {', '.join(others)}" if others else "nothing at all"
            raise SourceError(f"bag '{self.path}' holds no images, {held}")
        if wanted and wanted not in topics:
            raise SourceError(f"bag '{self.path}' has no images on '{wanted}', but on {listed}")
        if not wanted:  # a camera driver may offer more topics than were recorded
            topics = {name: topic for name, topic in topics.items() if topic.messages} or topics
        if not wanted and len(topics) > 1:
            raise SourceError(
                f"bag '{self.path}' has several image topics, choose one with --topic: {listed}"
            )
        return topics[wanted] if wanted else next(iter(topics.values()))

    def detections_topic(self, wanted: str) -> BagTopic:
        """Return the topic with a detector's boxes.

        Raises:
            SourceError: it holds none; the error lists the topics that do.

        """
        # ROS 1 defines vision_msgs otherwise.
        others = {channel.topic for channel in self._storage.channels if channel.encoding != "cdr"}
        found = self.topics(DETECTIONS, TARGETS)
        topics = {topic.name: topic for topic in found if topic.name not in others}
        if wanted not in topics:
            held = ", ".join(f"{t.name} ({t.type})" for t in topics.values()) or "no topic"
            raise SourceError(f"bag '{self.path}' has no boxes on '{wanted}', but on {held}")
        return topics[wanted]

    def messages(self, *topics: str, first: int = 0, last: int | None = None) -> Iterator[Recorded]:
        """Yield the messages on these topics, in the order they were recorded.

        Args:
            topics: their names.
            first: number of messages to skip.
            last: number of the first message not to read; None: up to the end of the bag.

        Raises:
            SourceError: some cannot be read, or their number differs from what the bag announces;
                raised after everything that can be read.

        """
        for channel, time_ns, raw in islice(self._raw(*topics), first, last):
            try:
                recorded = Recorded(channel.topic, time_ns, self._deserialize(raw, channel))
            except Exception as error:  # rosbags raises whatever the bytes lead it to
                reason = str(error) or type(error).__name__
                recorded = Recorded(channel.topic, time_ns, None, reason)
            yield recorded

    def serialized(self, *topics: str) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time in nanoseconds, and CDR as ROS 2 publishes it, of the same messages.

        Raises:
            SourceError: as for `messages`; an invalid ROS 1 message is left out and counts
                as unreadable.

        """
        left_out: Counter[str] = Counter()
        for channel, time_ns, raw in self._raw(*topics):
            try:
                # ROS 2's own definitions: the headers of ROS 1 have one more field.
                is_ros1 = channel.encoding == "ros1"
                cdr = self._types.ros1_to_cdr(raw, channel.type) if is_ros1 else raw
            except Exception as error:  # rosbags raises whatever the bytes lead it to
                _log.warning("a message on '%s' cannot be read: %s", channel.topic, error)
                left_out[channel.topic] += 1
                continue
            yield channel.topic, time_ns, bytes(cdr)
        if left_out:
            lost = ", ".join(f"{count} messages on {topic}" for topic, count in left_out.items())
            raise SourceError(f"bag '{self.path}': {lost} were left out, for they cannot be read")

    @cached_property
    def _ros1_types(self) -> Any:
        return typestore(ros1=True)

    @cached_property
    def _foxy_types(self) -> Any:
        return typestore(FOXY_DEFINITIONS)

    def _deserialize(self, raw: bytes, channel: Channel) -> Any:
        # By the standard definitions: those in a bag may be missing or in an unknown language.
        if channel.encoding == "ros1":
            return self._ros1_types.deserialize_ros1(raw, channel.type)
        types = self._foxy_types if channel.type == CLASSIFICATIONS[1] else self._types
        return types.deserialize_cdr(raw, channel.type)

    def _raw(self, *topics: str) -> Iterator[Message]:
        """Uncompressed messages; a difference from the announced number is raised at the end."""
        channels = [
            channel
            for channel in self._storage.channels
            if channel.topic in topics and channel.type in _READ and channel.encoding in _ENCODINGS
        ]
        read: Counter[str] = Counter()
        for channel, time_ns, raw in self._storage.messages(channels):
            read[channel.topic] += 1
            if raw.startswith(ZSTD_MAGIC) and channel.encoding == "cdr":  # rosbag2's message mode
                raw = decompressed("zstd", raw)
            yield channel, time_ns, raw
        losses = [
            *(self._difference(topic, channels, read[topic]) for topic in topics),
            *self._storage.damage[:_SHOWN],
        ]
        if len(self._storage.damage) > _SHOWN:
            losses.append(f"and {len(self._storage.damage) - _SHOWN} more")
        if any(losses):
            reasons = "; ".join(filter(None, losses))
            raise SourceError(f"bag '{self.path}' is damaged: {reasons}; {_RESCUE}")

    def _difference(self, topic: str, channels: list[Channel], read: int) -> str:
        """Describe the difference between messages read and announced; empty if there is none."""
        announced = {sum(channel.messages for channel in channels if channel.topic == topic)}
        if isinstance(self._storage, Folder) and self._storage.announced is not None:
            announced.add(self._storage.announced.get(topic, 0))
        others = announced - {read}
        return f"{read} of {max(others)} messages on {topic} were read" if others else ""
