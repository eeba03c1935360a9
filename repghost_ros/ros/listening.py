# SPDX-License-Identifier: Apache-2.0
"""The latest image of a topic, and what a node answered to it, for programs that are not nodes."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from repghost_ros.engine.matching import Matcher
from repghost_ros.engine.results import Result
from repghost_ros.errors import FrameError
from repghost_ros.ros import messages
from repghost_ros.ros.detections import BoxArray, detections_topics
from repghost_ros.ros.process import fastest_executor, init, interrupted, shutdown
from repghost_ros.ros.topics import Topic, candidate_topics, checked_topic, published_among
from repghost_ros.runs.regions import box_readers
from repghost_ros.sources.types import hypotheses
from repghost_ros.vision.boxes import BoxChoice
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import Frame, from_serialized

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
        for _ in _listen(node, (candidate_topics(node, topic, "auto"), newest.append)):
            if newest:
                yield partial(from_serialized, newest.pop())


def detected(
    topic: str,
    detections: str,
    matcher: Matcher[Serialized, BoxArray],
    choice: BoxChoice,
    ros_args: list[str],
) -> Iterator[list[tuple[Read, int]]]:
    """Yield what a detector's boxes show of an image, as readers and the image's stamp in nanoseconds.

    Until interrupted, and always of the newest image that has boxes.

    Args:
        topic: as for `image_readers`.
        detections: of a detector's arrays; subscribed to as soon as somebody publishes it.
        matcher: matches both by their stamps.
        choice: which boxes are wanted, and how much around them.
        ros_args: the arguments after --ros-args.

    Raises:
        SourceError: ROS does not allow that name for a topic.
        ParameterError: ROS refuses an argument.

    """
    pairs: deque[tuple[Serialized, BoxArray]] = deque(maxlen=1)

    def add_image(image: Serialized) -> None:
        met = matcher.add_image(_stamp_ns(image), image, image.size, time.monotonic())
        pairs.extend([met] if met else [])

    def add_boxes(array: BoxArray) -> None:
        met = matcher.add_boxes(array.stamp, array, array.size, time.monotonic())
        pairs.extend([met] if met else [])

    with _node("repghost_collect", ros_args) as node:
        images = candidate_topics(node, topic, "auto")
        arrays = detections_topics(node, checked_topic(node, detections))
        for _ in _listen(node, (images, add_image), (arrays, add_boxes)):
            if pairs:
                image, array = pairs.pop()
                try:
                    shown = [*box_readers(from_serialized(image), array.boxes, choice)]
                except FrameError:
                    continue
                yield [(read, array.stamp) for _, read in shown]


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
        stamp = _stamp_ns(message)
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
        images = candidate_topics(node, topic, "auto")
        for _ in _listen(node, (images, lambda message: pair(message, held))):
            if pairs:
                image, stamp, answer = pairs.pop()
                yield partial(from_serialized, image), stamp, hypotheses(answer)


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


def _stamp_ns(message: Any) -> int:
    """Return a message's stamp in nanoseconds; 0 if it is too short for one."""
    try:
        stamp = message.header.stamp
    except FrameError:
        return 0
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def _listen(node: Node, *inputs: tuple[Sequence[Topic], Callable[[Any], Any]]) -> Iterator[None]:
    """Pass messages on; yields after each wait for them, until interrupted.

    Args:
        node: subscribes.
        inputs: the candidates for a topic, and what takes its messages.

    """
    executor = fastest_executor(node.context)
    executor.add_node(node)
    missing = list(inputs)
    try:
        while rclpy.ok() and not interrupted():
            executor.spin_once(timeout_sec=0.1)
            for candidates, keep in tuple(missing):
                found = published_among(node, candidates)
                if found is not None:
                    missing.remove((candidates, keep))
                    _subscribe(node, found, keep)
            yield
    finally:
        executor.shutdown()


def _subscribe(node: Node, source: Topic, keep: Callable[[Any], Any]) -> None:
    def take(raw: bytes) -> None:  # rclpy needs a callback with a signature
        keep(source.read(raw))

    node.create_subscription(
        source.message_type, source.topic, take, qos_profile_sensor_data, raw=True
    )
