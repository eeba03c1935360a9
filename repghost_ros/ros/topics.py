# SPDX-License-Identifier: Apache-2.0
"""The topics and types that images come from, and why no image arrives.

`python -m repghost_ros.ros.topics` prints the image topics that are published now, one per line.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import rclpy
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.errors import SourceError, need
from repghost_ros.vision.cdr import Memory, Serialized, SerializedHbm

AnyTopic = TypeVar("AnyTopic", bound="Topic")
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_HBM_SIZES = ("HbmMsg1080P", "HbmMsg540P", "HbmMsg480P")  # the RDK camera's default first
_LISTED = 5  # topics that are proposed at most
_QUIET_S, _MOST_S = 2.0, 8.0  # discovery is over after this long without news, or in all


@dataclass(frozen=True)
class Topic(ABC):
    """A fully resolved topic and the type of message that is expected on it."""

    topic: str
    message_type: Any
    noun: ClassVar[str]
    """What a message is, for the log."""
    accepted: ClassVar[tuple[str, ...]]
    """Names of the types that could be read instead."""
    remedy: ClassVar[str] = ""
    """What lets the node read these."""

    @property
    def type_name(self) -> str:
        """The type's name in the graph, such as sensor_msgs/msg/Image."""
        package, _, rest = self.message_type.__module__.partition(".")
        return f"{package}/{rest.partition('.')[0]}/{self.message_type.__name__}"

    def __str__(self) -> str:
        return f"'{self.topic}' ({self.type_name})"

    @abstractmethod
    def read(self, raw: bytes | memoryview | Memory) -> Any:
        """Return a message of this type from the bytes that DDS delivered."""


@dataclass(frozen=True)
class ImageTopic(Topic):
    """A topic with images."""

    noun: ClassVar[str] = "image"
    accepted: ClassVar[tuple[str, ...]] = _IMAGES
    remedy: ClassVar[str] = ": set image_transport to auto"

    def read(self, raw: bytes | memoryview | Memory) -> Serialized:
        """Return an image from the bytes that DDS delivered."""
        if self.message_type in (Image, CompressedImage):
            return Serialized(raw, compressed=self.message_type is CompressedImage)
        return SerializedHbm(raw)


def candidate_topics(node: Node, image: str, transport: str) -> list[ImageTopic]:
    """Return the topics and types that images may come from, the likeliest first.

    As in image_transport, remapping `image` moves `image/compressed` along, unless that is remapped
    itself. A name that ends in /compressed is one already.

    Args:
        node: its remap rules apply.
        image: the topic before remapping, such as `front/image`.
        transport: `auto`, `raw`, `compressed` or `hbmem`.

    Raises:
        SourceError: ROS does not allow that name for a topic.
        DependencyError: the messages of `hbmem` are not installed.

    """
    topic = checked_topic(node, image)
    packed = node.resolve_topic_name(f"{image}/compressed")
    is_remapped = packed != node.resolve_topic_name(f"{image}/compressed", only_expand=True)
    if not is_remapped:
        packed = topic if topic.endswith("/compressed") else f"{topic}/compressed"
    raw = ImageTopic(topic, Image)
    compressed = list(
        dict.fromkeys([ImageTopic(packed, CompressedImage), ImageTopic(topic, CompressedImage)])
    )
    if transport == "hbmem":
        return [ImageTopic(topic, message_type) for message_type in _hbm_types()]
    if transport == "raw":
        return [raw]
    if transport == "compressed":
        return compressed
    is_compressed = is_remapped or packed == topic
    return [*compressed, raw] if is_compressed else [raw, *reversed(compressed)]


def checked_topic(node: Node, name: str) -> str:
    """Return a topic's full name.

    Raises:
        SourceError: ROS does not allow that name for a topic.

    """
    try:
        return str(node.resolve_topic_name(name))
    except Exception as error:  # rclpy's types differ between distributions
        # Its first words say why; then comes a line of rcl's source.
        reason = str(error).partition(", at ")[0].rpartition("resolve name: ")[2]
        raise SourceError(f"'{name}' cannot be a topic: {reason}") from error


def _hbm_types() -> list[Any]:
    """Return the types of the RDK's shared-memory images, which its MIPI camera publishes."""
    module = need(
        "hbm_img_msgs.msg",
        "source the RDK's own ROS, /opt/tros/humble/setup.bash, or set image_transport to raw",
    )
    return [getattr(module, name) for name in _HBM_SIZES]


def published_among(node: Node, candidates: Sequence[AnyTopic]) -> AnyTopic | None:
    """Return the first candidate that somebody publishes, or None."""
    types = {topic: _types(node, topic) for topic in {source.topic for source in candidates}}
    return next(
        (source for source in candidates if source.type_name in types[source.topic]),
        None,
    )


def complaint(node: Node, source: Topic, qos: QoSProfile) -> str:
    """Return why no message can arrive from a source, empty if one can."""
    endpoints = node.get_publishers_info_by_topic(source.topic)
    if not endpoints:
        others = sorted(
            topic
            for topic, types in node.get_topic_names_and_types()
            if set(types) & set(source.accepted) and not _is_own(node, topic)
        )
        where = f": {source.noun}s are published on {', '.join(others[:_LISTED])}" if others else ""
        return f"nobody publishes {source}{where}"
    fitting = [e for e in endpoints if e.topic_type == source.type_name]
    if not fitting:
        types = {endpoint.topic_type for endpoint in endpoints}
        remedy = source.remedy if types & set(source.accepted) else ""
        return (
            f"nobody publishes {source}, the topic has the type {', '.join(sorted(types))}{remedy}"
        )
    reasons = [_incompatible(endpoint.qos_profile, qos) for endpoint in fitting]
    return "" if "" in reasons else f"the publisher of {source} {reasons[0]}"


def silence(node: Node, source: Topic, qos: QoSProfile) -> str:
    """Return who publishes a source that has sent nothing, and what latched images need."""
    publishers = [
        endpoint
        for endpoint in node.get_publishers_info_by_topic(source.topic)
        if endpoint.topic_type == source.type_name
    ]
    names = ", ".join(sorted({_full_name(endpoint) for endpoint in publishers}))
    latched = DurabilityPolicy.TRANSIENT_LOCAL
    is_missed = qos.durability != latched and latched in {
        endpoint.qos_profile.durability for endpoint in publishers
    }
    prefix = f"qos_overrides.{source.topic}.subscription"
    remedy = (
        f"; it latches images (transient_local): one of before arrives with {prefix}.durability "
        f"set to transient_local and {prefix}.reliability to reliable"
    )
    return f"{names} publishes {source} and has sent none since{remedy if is_missed else ''}"


def _full_name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _is_own(node: Node, topic: str) -> bool:
    """Return whether only the node that `node` belongs to publishes a topic."""
    names = {endpoint.node_name for endpoint in node.get_publishers_info_by_topic(topic)}
    return all(node.get_name().startswith(name) for name in names)


def _types(node: Node, topic: str) -> set[str]:
    return {endpoint.topic_type for endpoint in node.get_publishers_info_by_topic(topic)}


def _incompatible(offered: QoSProfile, wanted: QoSProfile) -> str:
    """Return why a subscription cannot have what a publisher offers, empty if it can."""
    best_effort = offered.reliability == ReliabilityPolicy.BEST_EFFORT
    if best_effort and wanted.reliability == ReliabilityPolicy.RELIABLE:
        return "is best_effort, but reliable is asked for: set qos_reliability to best_effort"
    compatibility, reason = qos_check_compatible(offered, wanted)
    return f"has an incompatible QoS: {reason}" if compatibility == QoSCompatibility.ERROR else ""


def _image_topics(node: Node) -> list[str]:
    """Return the published image topics, with type and number of publishers."""
    return [
        f"{topic} ({name}, {publishers} publishers)"
        for topic, types in sorted(node.get_topic_names_and_types())
        for name in types
        if name in _IMAGES and (publishers := node.count_publishers(topic))
    ]


def main() -> None:
    """Wait until discovery finds nothing new, then print the image topics."""
    rclpy.init()
    node = rclpy.create_node("repghost_doctor")
    begun = changed = time.monotonic()
    known: list[str] = []
    while (now := time.monotonic()) < begun + _MOST_S and not (known and now > changed + _QUIET_S):
        time.sleep(0.2)
        found = _image_topics(node)
        if found != known:
            known, changed = found, time.monotonic()
    print("\n".join(known))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
