# SPDX-License-Identifier: Apache-2.0
"""Serialized messages through rcl's C interface, over DDS, against what rclpy sends and takes."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.waiting import WAIT

pytest.importorskip("rclpy")
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification

import repghost_ros.native as native
from repghost_ros.engine.pipeline import Bell
from repghost_ros.ros import rcl

QOS = QoSProfile(depth=20)
SILENT = Bell(threading.RLock())


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode("rcl", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def patiently(take: Any) -> Any:
    """Call it until it returns something, and return that."""
    deadline = time.monotonic() + WAIT
    while (taken := take()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return taken


def connected(publisher: Any) -> None:
    patiently(lambda: publisher.get_subscription_count() or None)


def linked(node: LifecycleNode, topic: str) -> tuple[Any, Any]:
    """Make an image publisher and a subscription that has found it."""
    publisher = node.create_publisher(Image, topic, QOS)
    subscription = node.create_subscription(Image, topic, lambda _: None, QOS)
    connected(publisher)
    return publisher, subscription


def image(size: int) -> Image:
    message = Image(height=1, width=size, encoding="mono8", step=size)
    message.data = array("B", bytes(i % 251 for i in range(size)))
    return message


@pytest.fixture(params=["compiled", "python"])
def receiver(
    node: LifecycleNode, request: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[rcl.MessageTaker]:
    if request.param == "python":
        monkeypatch.setattr(native, "library", lambda: None)
    receiver = rcl.MessageTaker(node.context)
    yield receiver
    receiver.close()


def test_takes_what_was_sent_whatever_its_size(
    node: LifecycleNode, receiver: rcl.MessageTaker
) -> None:
    publisher, subscription = linked(node, "image")
    subscriptions = [subscription]
    kept = []
    for size in (10, 100_000, 1_000, 0, 300_000):
        sent = serialize_message(image(size))
        publisher.publish(sent)
        place, taken = receiver.receive(subscriptions, WAIT, SILENT) or (-1, None)
        assert place == 0
        assert taken is not None
        assert 0 <= taken.size - len(sent) < 4  # Cyclone DDS pads to a multiple of 4 bytes
        kept.append((sent, taken.view()))
        del taken
    assert receiver.receive(subscriptions, 0.0, SILENT) is None
    # All of them: nothing was taken into the memory of what is still looked at.
    for sent, view in kept:
        assert view[: len(sent)] == sent


def test_takes_from_several_subscriptions_in_turn(
    node: LifecycleNode, receiver: rcl.MessageTaker
) -> None:
    topics = ("one", "two", "three")
    publishers, subscriptions = zip(*(linked(node, topic) for topic in topics))
    for publisher in publishers:
        for size in (1, 2):
            publisher.publish(image(size))
    time.sleep(0.2)  # so that all have arrived
    places = [(receiver.receive(subscriptions, WAIT, SILENT) or (None,))[0] for _ in range(6)]
    assert places == [0, 1, 2, 0, 1, 2]


def test_returns_when_woken_and_loses_no_message(
    node: LifecycleNode, receiver: rcl.MessageTaker
) -> None:
    publisher, subscription = linked(node, "image")
    subscriptions = [subscription]
    assert receiver.receive(subscriptions, 0.0, SILENT) is None
    woken = threading.Timer(0.2, receiver.wake)
    woken.start()
    assert receiver.receive(subscriptions, WAIT, SILENT) is None
    woken.join()
    # Both at once: neither is lost.
    publisher.publish(image(10))
    time.sleep(0.1)
    receiver.wake()
    received = [receiver.receive(subscriptions, WAIT, SILENT) for _ in range(2)]
    assert received.count(None) == 1


def test_memory_is_used_again_once_nobody_looks_at_it(
    node: LifecycleNode, receiver: rcl.MessageTaker
) -> None:
    publisher, subscription = linked(node, "image")
    subscriptions = [subscription]
    for _ in range(5):
        publisher.publish(image(1000))
        received = receiver.receive(subscriptions, WAIT, SILENT)
        assert received is not None
        part = received[1].view()[8:16]
        del received
        assert not receiver._idle
        del part
        assert len(receiver._idle) == 1


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
