# SPDX-License-Identifier: Apache-2.0
"""Serialized messages through rcl's C interface, over DDS, against what rclpy sends and takes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification

from repghost_ros.ros import rcl

QOS = QoSProfile(depth=20)


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode("rcl", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def patiently(take: Any) -> Any:
    """What it returns once that is something."""
    deadline = time.monotonic() + 10
    while (taken := take()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return taken


def connected(publisher: Any) -> None:
    patiently(lambda: publisher.get_subscription_count() or None)


def image(size: int) -> Image:
    message = Image(height=1, width=size, encoding="mono8", step=size)
    message.data = array("B", bytes(i % 251 for i in range(size)))
    return message


def test_takes_what_was_sent_whatever_its_size(node: LifecycleNode) -> None:
    publisher = node.create_publisher(Image, "image", QOS)
    taker = rcl.Taker(node.create_subscription(Image, "image", lambda _: None, QOS))
    connected(publisher)
    kept = []
    for size in (10, 100_000, 1_000, 0, 300_000):
        sent = serialize_message(image(size))
        publisher.publish(sent)
        kept.append((sent, patiently(taker.take)))
    assert taker.take() is None
    # All of them: nothing was taken into the memory of what is still looked at.
    for sent, taken in kept:
        assert taken == sent


def test_memory_is_used_again_once_nobody_looks_at_it(node: LifecycleNode) -> None:
    publisher = node.create_publisher(Image, "image", QOS)
    taker = rcl.Taker(node.create_subscription(Image, "image", lambda _: None, QOS))
    connected(publisher)
    for _ in range(5):
        publisher.publish(image(1000))
        part = patiently(taker.take)[8:16]
        assert not taker._idle
        del part
        assert len(taker._idle) == 1


def test_sends_bytes_while_the_publisher_is_activated(node: LifecycleNode) -> None:
    publisher: Any = node.create_lifecycle_publisher(Classification, "answer", QOS)
    subscription: Any = node.create_subscription(Classification, "answer", lambda _: None, QOS)
    connected(publisher)
    first, second = Classification(), Classification()
    first.header.frame_id, second.header.frame_id = "too early", "camera"
    rcl.publish(publisher, serialize_message(first))
    node.trigger_configure()
    node.trigger_activate()
    for message in (second, serialize_message(second)):
        rcl.publish(publisher, message)
        taken, _ = patiently(lambda: subscription.handle.take_message(Classification, False))
        assert taken == second


def test_the_middleware_is_quoted(node: LifecycleNode) -> None:
    publisher: Any = node.create_lifecycle_publisher(Classification, "answer", QOS)
    node.trigger_configure()
    node.trigger_activate()
    rclpy.try_shutdown(context=node.context)
    said = "cannot be published: publisher's context is invalid|destruction was requested"  # Kilted
    with pytest.raises(RuntimeError, match=said):
        rcl.publish(publisher, serialize_message(Classification()))
