# SPDX-License-Identifier: Apache-2.0
"""Print the image topics that are published now, one per line; run with `python -m`."""

from __future__ import annotations

import time

import rclpy
from rclpy.node import Node

_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_QUIET_S, _MOST_S = 2.0, 8.0


def image_topics(node: Node) -> list[str]:
    """Each published image topic, with its type and number of publishers."""
    return [
        f"{topic} ({name}, {publishers} publishers)"
        for topic, types in sorted(node.get_topic_names_and_types())
        for name in types
        if name in _TYPES and (publishers := node.count_publishers(topic))
    ]


def main() -> None:
    """Wait until discovery finds nothing new, then print the topics."""
    rclpy.init()
    node = rclpy.create_node("repghost_doctor")
    begun = changed = time.monotonic()
    known: list[str] = []
    while (now := time.monotonic()) < begun + _MOST_S and not (known and now > changed + _QUIET_S):
        time.sleep(0.2)
        found = image_topics(node)
        if found != known:
            known, changed = found, time.monotonic()
    print("\n".join(known))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
