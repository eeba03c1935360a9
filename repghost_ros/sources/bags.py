"""ROS 1 and ROS 2 bags without ROS: images out of one, classifications into another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from repghost_ros.errors import FrameError, SourceError, need
from repghost_ros.results import Result
from repghost_ros.vision.frame import Frame, from_compressed, from_image

_log = logging.getLogger(__name__)
INSTALL = "pip install rosbags"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CLASSIFICATION = "vision_msgs/msg/Classification"
CLASSIFICATIONS = (CLASSIFICATION, "vision_msgs/msg/Classification2D")
"""What the node publishes; the latter on Foxy."""
STORAGES = ("mcap", "sqlite3")
_HYPOTHESIS = "vision_msgs/msg/ObjectHypothesis"
_DEFINITIONS = {
    _HYPOTHESIS: "string class_id\nfloat64 score\n",
    CLASSIFICATION: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n",
}
_FOXY_DEFINITIONS = {
    _HYPOTHESIS: "string id\nfloat64 score\n",
    CLASSIFICATIONS[1]: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n"
    "sensor_msgs/Image source_img\n",
}
_RESCUE = "what broke off may be repaired: ros2 bag reindex, mcap recover, rosbag reindex"
_NOT_IN_URIS = "#?%"
"""rosbags makes the paths of sqlite3 files into URIs as they are."""
_METADATA_VERSION = 8
"""Of the bags written; newer ones keep QoS in a way that Humble and Iron do not read."""


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
        """Of its header, nanoseconds; when it was recorded where that cannot be read."""
        if self.message is None:
            return self.time_ns
        stamp = self.message.header.stamp
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

    @property
    def frame_id(self) -> str:
        """Of its header."""
        return "" if self.message is None else str(self.message.header.frame_id)

    def frame(self) -> Frame:
        """The picture of an Image or CompressedImage.

        Raises:
            FrameError: it cannot be read, or is of an unknown encoding.

        """
        if self.message is None:
            raise FrameError(f"the message cannot be read: {self.error}")
        compressed = hasattr(self.message, "format")
        return from_compressed(self.message) if compressed else from_image(self.message)


@dataclass(frozen=True)
class Topic:
    """What a bag holds on one topic."""

    name: str
    type: str
    messages: int


class Bag(AbstractContextManager["Bag"]):
    """An opened bag; use it in a `with` statement.

    Args:
        path: a ROS 1 .bag, a ROS 2 bag's folder, or an .mcap or .db3 file of one.

    Raises:
        SourceError: rosbags is missing, or there is no readable bag.

    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SourceError(f"bag '{path}' does not exist")
        self.path = path
        self._is_ros1 = path.suffix == ".bag" and path.is_file()
        self._types = typestore()
        with self._told("is no bag that can be read"):
            self._reader: Any = _reader1(path) if self._is_ros1 else _reader2(path)
            self._reader.open()

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def topics(self, *types: str) -> list[Topic]:
        """The topics of these types, by name."""
        counts: dict[tuple[str, str], int] = {}
        for each in self._reader.connections:  # in ROS 1 one a publisher
            if each.msgtype in types:
                key = each.topic, each.msgtype
                counts[key] = counts.get(key, 0) + each.msgcount
        return [Topic(*key, count) for key, count in sorted(counts.items())]

    def image_topic(self, wanted: str = "") -> Topic:
        """The topic to classify: the one that is wanted, else the only one that holds images.

        Raises:
            SourceError: it holds no images, or which one is meant is open; lists what there is.

        """
        topics = {topic.name: topic for topic in self.topics(IMAGE, COMPRESSED)}
        listed = ", ".join(f"{t.name} ({t.type}, {t.messages} messages)" for t in topics.values())
        if not topics:
            others = ", ".join(sorted({c.topic for c in self._reader.connections}))
            others = others or "nothing at all"
            raise SourceError(f"bag '{self.path}' holds no images, only {others}")
        if wanted and wanted not in topics:
            raise SourceError(f"bag '{self.path}' has no images on '{wanted}', but on {listed}")
        if not wanted:  # a camera's driver may offer more than anyone recorded
            topics = {name: topic for name, topic in topics.items() if topic.messages} or topics
        if not wanted and len(topics) > 1:
            raise SourceError(
                f"bag '{self.path}' has several image topics, choose one with --topic: {listed}"
            )
        return topics[wanted] if wanted else next(iter(topics.values()))

    def messages(self, *topics: str) -> Iterator[Recorded]:
        """The messages on these topics, in the order they were recorded.

        Raises:
            SourceError: the bag is truncated or corrupt there.

        """
        for topic, time_ns, raw, kind in self._raw(topics):
            try:
                recorded = Recorded(topic, time_ns, self._deserialize(raw, kind))
            except Exception as error:  # rosbags raises whatever the bytes lead it to
                recorded = Recorded(topic, time_ns, None, str(error) or type(error).__name__)
            yield recorded

    def serialized(self, *topics: str) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time in nanoseconds, and CDR as ROS 2 publishes it, of the same messages.

        A message of ROS 1 that cannot be read is left out, with a warning.

        Raises:
            SourceError: the bag is truncated or corrupt there.

        """
        for topic, time_ns, raw, kind in self._raw(topics):
            try:
                # ROS 2's own definitions: the headers of ROS 1 have a field more.
                cdr = self._types.ros1_to_cdr(raw, kind) if self._is_ros1 else raw
            except Exception as error:  # rosbags raises whatever the bytes lead it to
                _log.warning("a message on '%s' was left out: it cannot be read: %s", topic, error)
                continue
            yield topic, time_ns, bytes(cdr)

    @cached_property
    def _ros1_types(self) -> Any:
        return typestore(ros1=True)

    @cached_property
    def _foxy_types(self) -> Any:
        return typestore(_FOXY_DEFINITIONS)

    def _deserialize(self, raw: bytes, kind: str) -> Any:
        # By the well-known definitions: those in a bag may be missing or of a language not known here.
        if self._is_ros1:
            return self._ros1_types.deserialize_ros1(raw, kind)
        types = self._foxy_types if kind == CLASSIFICATIONS[1] else self._types
        return types.deserialize_cdr(raw, kind)

    def _raw(self, topics: Sequence[str]) -> Iterator[tuple[str, int, bytes, str]]:
        connections = [each for each in self._reader.connections if each.topic in topics]
        with self._told("breaks off"):
            for connection, time_ns, raw in self._reader.messages(connections):
                yield connection.topic, time_ns, raw, connection.msgtype

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn the many exceptions that broken bags cause into one."""
        try:
            yield
        except (GeneratorExit, SourceError, MemoryError):
            raise
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            raise SourceError(f"bag '{self.path}' {what}: {reason}; {_RESCUE}") from error


class ClassificationWriter(AbstractContextManager["ClassificationWriter"]):
    """Writes a ROS 2 bag of vision_msgs/Classification, playable from Humble on; use it in `with`.

    Args:
        path: the folder to make.
        topic: what they are recorded on.
        storage: one of STORAGES.

    Raises:
        SourceError: rosbags is missing, or the folder exists already.

    """

    def __init__(self, path: Path, topic: str, storage: str = "mcap") -> None:
        rosbag2 = need("rosbags.rosbag2", INSTALL)
        if path.exists() or path.is_symlink():
            raise SourceError(f"'{path}' exists already: remove it, or write elsewhere")
        if storage == "sqlite3" and set(_NOT_IN_URIS) & set(str(path)):
            raise SourceError(
                f"'{path}' cannot be written with sqlite3, whose paths have none of {_NOT_IN_URIS}: "
                "write elsewhere, or mcap"
            )
        self._types = typestore()
        self._writer: Any = rosbag2.Writer(
            path,
            version=_METADATA_VERSION,
            storage_plugin=rosbag2.StoragePlugin[storage.upper()],
        )
        self._writer.open()
        self._connection = self._writer.add_connection(topic, CLASSIFICATION, typestore=self._types)

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, time_ns: int, stamp_ns: int, frame_id: str, results: Sequence[Result]) -> None:
        """Record one classification at a time, under an image's stamp and frame_id."""
        types = self._types.types
        time_type = types["builtin_interfaces/msg/Time"]
        stamp = time_type(*divmod(stamp_ns, 1_000_000_000))
        message = types[CLASSIFICATION](
            types["std_msgs/msg/Header"](stamp, frame_id),
            [types[_HYPOTHESIS](each.class_id, each.score) for each in results],
        )
        raw = self._types.serialize_cdr(message, CLASSIFICATION)
        self._writer.write(self._connection, time_ns, raw)


def hypotheses(message: Any) -> tuple[Result, ...]:
    """The results in a recorded Classification or Classification2D, best first."""
    return tuple(
        Result(each.class_id if hasattr(each, "class_id") else each.id, each.score)
        for each in message.results
    )


def typestore(definitions: Mapping[str, str] = _DEFINITIONS, *, ros1: bool = False) -> Any:
    """The rosbags type store of ROS 2 or ROS 1, with some vision_msgs by name and definition.

    Raises:
        DependencyError: rosbags is missing.

    """
    typesys = need("rosbags.typesys", INSTALL)
    stores = typesys.Stores
    store = typesys.get_typestore(stores.ROS1_NOETIC if ros1 else stores.ROS2_HUMBLE)
    for name, definition in definitions.items():
        if name not in store.fielddefs:
            store.register(typesys.get_types_from_msg(definition, name))
    return store


def _reader1(path: Path) -> Any:
    return need("rosbags.rosbag1", INSTALL).Reader(path)


def _reader2(path: Path) -> Any:
    """A reader of rosbags that no topic's message definition keeps from opening a bag.

    rosbag2 stores what it has no .msg file for, such as an action's feedback, under encodings that
    rosbags does not know; only well-known types are read here.
    """
    rosbag2 = need("rosbags.rosbag2.reader", INSTALL)
    mcap = need("rosbags.rosbag2.storage_mcap", INSTALL)

    class McapReader(mcap.McapReader):  # type: ignore[misc, name-defined]
        def read_index(self) -> None:
            super().read_index()
            self._accept()

        def meta_scan(self) -> None:
            super().meta_scan()
            self._accept()

        def _accept(self) -> None:
            for key, schema in self.schemas.items():
                if schema.encoding not in ("ros2msg", "ros2idl"):
                    self.schemas[key] = schema._replace(encoding="ros2msg")

    class DirectoryReader(rosbag2.DirectoryReader):  # type: ignore[misc, name-defined]
        STORAGE_PLUGINS = {**rosbag2.DirectoryReader.STORAGE_PLUGINS, "mcap": McapReader}  # noqa: RUF012

    class Reader(rosbag2.Reader):  # type: ignore[misc, name-defined]
        STORAGE_PLUGINS = {  # noqa: RUF012
            **rosbag2.Reader.STORAGE_PLUGINS,
            "dir": DirectoryReader,
            ".mcap": McapReader,
        }

    return Reader(path)
