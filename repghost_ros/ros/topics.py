# SPDX-License-Identifier: Apache-2.0
"""Which topic and type a camera's images come from, and what is wrong where none come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.ros import hbmem
from repghost_ros.vision.cdr import Memory, Serialized, SerializedHbm

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_LISTED = 5  # topics that are proposed at most


@dataclass(frozen=True)
class Source:
    """A fully resolved topic and the type that is expected on it."""

    topic: str
    message_type: Any

    @property
    def type_name(self) -> str:
        """As the graph names the type, such as sensor_msgs/msg/Image."""
        package, _, rest = self.message_type.__module__.partition(".")
        return f"{package}/{rest.partition('.')[0]}/{self.message_type.__name__}"

    def __str__(self) -> str:
        return f"'{self.topic}' ({self.type_name})"

    def read(self, raw: bytes | memoryview | Memory) -> Serialized:
        """A message as DDS delivered it."""
        if self.message_type in (Image, CompressedImage):
            return Serialized(raw, compressed=self.message_type is CompressedImage)
        return SerializedHbm(raw)


def sources(node: Node, image: str, transport: str) -> list[Source]:
    """Where images may come from, the likeliest first.

    As in image_transport, remapping `image` moves `image/compressed` along, unless that is remapped
    itself. A name that ends in /compressed is one already.

    Args:
        node: whose remap rules count.
        image: the topic as the node names it, such as `front/image`.
        transport: `auto`, `raw`, `compressed` or `hbmem`.

    Raises:
        DependencyError: the messages of `hbmem` are not installed.

    """
    topic = node.resolve_topic_name(image)
    packed = node.resolve_topic_name(f"{image}/compressed")
    is_remapped = packed != node.resolve_topic_name(f"{image}/compressed", only_expand=True)
    if not is_remapped:
        packed = topic if topic.endswith("/compressed") else f"{topic}/compressed"
    raw = Source(topic, Image)
    compressed = list(
        dict.fromkeys([Source(packed, CompressedImage), Source(topic, CompressedImage)])
    )
    if transport == "hbmem":
        return [Source(topic, message_type) for message_type in hbmem.message_types()]
    if transport == "raw":
        return [raw]
    if transport == "compressed":
        return compressed
    is_compressed = is_remapped or packed == topic
    return [*compressed, raw] if is_compressed else [raw, *reversed(compressed)]


def published(node: Node, candidates: list[Source]) -> Source | None:
    """The first of them that somebody publishes, None where nobody publishes any."""
    types = {topic: _types(node, topic) for topic in {source.topic for source in candidates}}
    return next(
        (source for source in candidates if source.type_name in types[source.topic]),
        None,
    )


def complaint(node: Node, source: Source, qos: QoSProfile) -> str:
    """Why no images can come from there, empty where they can."""
    endpoints = node.get_publishers_info_by_topic(source.topic)
    if not endpoints:
        others = sorted(
            topic
            for topic, types in node.get_topic_names_and_types()
            if set(types) & set(_IMAGES) and not _is_own(node, topic)
        )
        where = f": images are published on {', '.join(others[:_LISTED])}" if others else ""
        return f"nobody publishes {source}{where}"
    fitting = [e for e in endpoints if e.topic_type == source.type_name]
    if not fitting:
        types = {endpoint.topic_type for endpoint in endpoints}
        remedy = ": set image_transport to auto" if types & set(_IMAGES) else ""
        return (
            f"nobody publishes {source}, the topic has the type {', '.join(sorted(types))}{remedy}"
        )
    reasons = [_incompatible(endpoint.qos_profile, qos) for endpoint in fitting]
    return "" if "" in reasons else f"the publisher of {source} {reasons[0]}"


def _is_own(node: Node, topic: str) -> bool:
    """Nobody publishes it but the node that `node` subscribes for."""
    names = {endpoint.node_name for endpoint in node.get_publishers_info_by_topic(topic)}
    return all(node.get_name().startswith(name) for name in names)


def _types(node: Node, topic: str) -> set[str]:
    return {endpoint.topic_type for endpoint in node.get_publishers_info_by_topic(topic)}


def _incompatible(offered: QoSProfile, wanted: QoSProfile) -> str:
    """Why a subscription cannot have what a publisher offers, empty where it can."""
    best_effort = offered.reliability == ReliabilityPolicy.BEST_EFFORT
    if best_effort and wanted.reliability == ReliabilityPolicy.RELIABLE:
        return "is best_effort, but reliable is asked for: set qos_reliability to best_effort"
    compatibility, reason = qos_check_compatible(offered, wanted)
    return f"has an incompatible QoS: {reason}" if compatibility == QoSCompatibility.ERROR else ""
