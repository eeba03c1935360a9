# SPDX-License-Identifier: Apache-2.0
"""The latest image of a topic, and what a node answered to it, for programs that are not nodes."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from repghost_ros.engine.results import Result
from repghost_ros.ros import messages
from repghost_ros.ros.process import fastest_executor, init, interrupted, shutdown
from repghost_ros.ros.topics import candidate_topics, checked_topic, published_among
from repghost_ros.sources.types import hypotheses
from repghost_ros.vision.frame import Frame, from_message

Read = Callable[[], Frame]
_HELD = 64
"""Images that wait for their answer; the oldest are forgotten."""


def image_readers(topic: str, ros_args: list[str]) -> Iterator[Read]:
    """Yield readers of a topic's images until interrupted, always of the newest.

    Args:
        topic: of sensor_msgs/Image or CompressedImage; subscribed to as soon as somebody publishes it.
        ros_args: the arguments after --ros-args.

    Raises:
        SourceError: ROS does not allow that name for a topic.
        ParameterError: ROS refuses an argument.

    """
    newest: deque[Any] = deque(maxlen=1)
    with _node("repghost_watch", ros_args) as node:
        for _ in _listen(node, topic, newest.append):
            if newest:
                yield partial(from_message, newest.pop())


def answered(
    topic: str, answers: str, ros_args: list[str]
) -> Iterator[tuple[Read, int, tuple[Result, ...]]]:
    """Yield readers of images, their stamps in nanoseconds, and what the node answered to them.

    Until interrupted, and always the newest: where these come faster than they are taken, some are
    left out.

    Args:
        topic: as for `images`.
        answers: the node's topic with a Classification for each.
        ros_args: the arguments after --ros-args.

    Raises:
        SourceError: ROS does not allow that name for a topic.
        ParameterError: ROS refuses an argument.

    """
    held: OrderedDict[int, Any] = OrderedDict()
    known: OrderedDict[int, Any] = OrderedDict()
    pairs: deque[tuple[Any, int, Any]] = deque(maxlen=1)

    def pair(message: Any, mine: OrderedDict[int, Any]) -> None:
        """Keep a message until its partner is there; either may come first."""
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        mine[stamp] = message
        if stamp in held and stamp in known:
            pairs.append((held.pop(stamp), stamp, known.pop(stamp)))
        elif len(mine) > _HELD:
            mine.popitem(last=False)

    with _node("repghost_collect", ros_args) as node:
        answers = checked_topic(node, answers)
        node.create_subscription(
            messages.Classification,
            answers,
            lambda message: pair(message, known),
            qos_profile_sensor_data,
        )
        for _ in _listen(node, topic, lambda message: pair(message, held)):
            if pairs:
                image, stamp, answer = pairs.pop()
                yield partial(from_message, image), stamp, hypotheses(answer)


@contextmanager
def _node(name: str, ros_args: list[str]) -> Iterator[Node]:
    """Yield a node of this process."""
    init(["repghost", "--ros-args", *ros_args])
    node = Node(name)
    try:
        yield node
    finally:
        node.destroy_node()
        shutdown()


def _listen(node: Node, topic: str, keep: Callable[[Any], Any]) -> Iterator[None]:
    """Pass a topic's images on to `keep`; yields after each wait for messages, until interrupted."""
    executor = fastest_executor(node.context)
    executor.add_node(node)
    found = None

    def take(message: Any) -> None:  # rclpy needs a callback with a signature
        keep(message)

    try:
        candidates = candidate_topics(node, topic, "auto")
        while rclpy.ok() and not interrupted():
            executor.spin_once(timeout_sec=0.1)
            if found is None and (found := published_among(node, candidates)) is not None:
                node.create_subscription(
                    found.message_type, found.topic, take, qos_profile_sensor_data
                )
            yield
    finally:
        executor.shutdown()
