# SPDX-License-Identifier: Apache-2.0
"""The node in whichever executor: its images are taken once, by its own subscription."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from helpers.waiting import wait_until

pytest.importorskip("rclpy")
import rclpy
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from repghost_ros.ros import messages
from repghost_ros.ros.node import ClassifierNode
from repghost_ros.ros.process import fastest_executor, spin

FRAMES = 50
ALL = QoSProfile(depth=FRAMES)
EXECUTORS: dict[str, Callable[..., Any]] = {
    "single": SingleThreadedExecutor,  # Humble's fastest
    "multi": partial(MultiThreadedExecutor, 4),
    "fastest": fastest_executor,
}


class Spun:
    """A context and an executor on a thread of its own."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.executor = make(context=self.context)
        self._done = threading.Event()
        self._thread = threading.Thread(
            target=spin, args=(self.executor, self.context, self._done.is_set)
        )

    def start(self, node: Any) -> None:
        self.executor.add_node(node)
        self._thread.start()

    def close(self, node: Any) -> None:
        self._done.set()
        self._thread.join()
        self.executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.mark.parametrize("name", EXECUTORS)
def test_images_are_taken_once_and_in_order(name: str) -> None:
    ours, theirs = Spun(EXECUTORS[name]), Spun(SingleThreadedExecutor)
    parameters = {
        "model": "demo",
        "qos_reliability": "reliable",
        "qos_depth": FRAMES,
        "queue_depth": FRAMES,
    }
    node = ClassifierNode(
        name,
        context=ours.context,
        parameter_overrides=[Parameter(key, value=value) for key, value in parameters.items()],
    )
    robot = rclpy.create_node("robot", context=theirs.context)
    answers: list[int] = []
    robot.create_subscription(
        messages.Classification,
        f"/{name}/classification",
        lambda message: answers.append(message.header.stamp.sec),  # type: ignore[attr-defined]
        ALL,
    )
    publisher = robot.create_publisher(Image, "image", ALL)
    ours.start(node)
    theirs.start(robot)
    try:
        wait_until(
            lambda: (
                publisher.get_subscription_count()
                and node.count_subscribers(f"/{name}/classification")
            ),
            "the camera and the answers to match",
        )
        image = Image(encoding="mono8", width=64, height=64, step=64)
        image.data = array("B", bytes(64 * 64))
        for number in range(FRAMES):
            image.header.stamp.sec = number
            publisher.publish(image)
        wait_until(lambda: len(answers) == FRAMES, "every answer")
        assert answers == list(range(FRAMES))
        taken = robot.get_subscriber_names_and_types_by_node(name, "/")
        assert ("/image", ["sensor_msgs/msg/Image"]) in taken
    finally:
        ours.close(node)
        theirs.close(robot)
