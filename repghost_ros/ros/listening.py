# SPDX-License-Identifier: Apache-2.0
"""The latest image of a topic, for programs that are not nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from repghost_ros.ros.process import fastest_executor, init, interrupted, shutdown
from repghost_ros.ros.topics import candidate_topics, published_among
from repghost_ros.vision.frame import Frame, from_message

Read = Callable[[], Frame]


def image_readers(topic: str, ros_args: list[str]) -> Iterator[Read]:
    """Yield readers of a topic's images until interrupted, always of the newest.

    Args:
        topic: of sensor_msgs/Image or CompressedImage; subscribed to as soon as somebody publishes it.
        ros_args: the arguments after --ros-args.

    Raises:
        SourceError: ROS does not allow that name for a topic.
        ParameterError: ROS refuses an argument.

    """
    init(["repghost", "--ros-args", *ros_args])
    node = Node("repghost_watch")
    executor = fastest_executor(node.context)
    executor.add_node(node)
    newest: deque[Any] = deque(maxlen=1)
    found = None

    def keep(message: Any) -> None:  # rclpy needs a callback with a signature
        newest.append(message)

    try:
        candidates = candidate_topics(node, topic, "auto")
        while rclpy.ok() and not interrupted():
            executor.spin_once(timeout_sec=0.1)
            if found is None and (found := published_among(node, candidates)) is not None:
                node.create_subscription(
                    found.message_type, found.topic, keep, qos_profile_sensor_data
                )
            elif found is not None and newest:
                yield partial(from_message, newest.pop())
    finally:
        executor.shutdown()
        node.destroy_node()
        shutdown()
