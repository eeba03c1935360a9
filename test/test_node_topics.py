# SPDX-License-Identifier: Apache-2.0
"""The node's subscriptions: whatever the images are called and however they are packed."""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from typing import Any

import cv2
import pytest
from helpers.graph import BEST_EFFORT, RELIABLE, Robot, image, running_node, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from repghost_ros.ros import messages
from repghost_ros.sources.signs import sequence

SHOWN, PICTURE = next(iter(sequence(4, 320, 240, frames_per_scene=1)))


def packed(stamp: int, format: str = "jpeg") -> CompressedImage:
    header = Header(frame_id="camera")
    header.stamp.sec = stamp
    data = array("B", cv2.imencode(".jpg", PICTURE)[1].tobytes())
    return CompressedImage(header=header, format=format, data=data)


def classified(robot: Robot, topic: str, message_type: Any) -> str:
    """Return the class of a picture that is published there until it is answered."""
    publisher = robot.node.create_publisher(message_type, topic, RELIABLE)
    wait_until(publisher.get_subscription_count, f"a subscription to {topic}")
    for stamp in range(1, 60):
        message = packed(stamp) if message_type is CompressedImage else image(PICTURE, stamp)
        publisher.publish(message)
        time.sleep(0.2)
        if robot.classifications:
            return messages.results(robot.classifications[-1])[0].class_id
    raise AssertionError(f"no answer to {topic}")


@pytest.mark.parametrize(
    ("arguments", "parameters", "topic", "message_type"),
    [
        ((), {}, "/image", Image),
        ((), {}, "/image", CompressedImage),
        ((), {}, "/image/compressed", CompressedImage),
        ((), {"image_transport": "compressed"}, "/image", CompressedImage),
        (("-r", "image:=/image_jpeg"), {}, "/image_jpeg", CompressedImage),
        (
            ("-r", "image:=/image_jpeg"),
            {"image_transport": "compressed"},
            "/image_jpeg",
            CompressedImage,
        ),
        (
            ("-r", "image/compressed:=/image_jpeg"),
            {"image_transport": "compressed"},
            "/image_jpeg",
            CompressedImage,
        ),
        (("-r", "image/compressed:=/image_jpeg"), {}, "/image_jpeg", CompressedImage),
        (("-r", "image:=/c/image_raw"), {}, "/c/image_raw/compressed", CompressedImage),
        (("-r", "image:=/c/image_raw/compressed"), {}, "/c/image_raw/compressed", CompressedImage),
        (
            ("-r", "image:=/c/image_raw/compressed"),
            {"image_transport": "compressed"},
            "/c/image_raw/compressed",
            CompressedImage,
        ),
    ],
)
def test_images_are_found(
    robot: Robot,
    arguments: tuple[str, ...],
    parameters: dict[str, Any],
    topic: str,
    message_type: Any,
) -> None:
    with running_node(*arguments, **parameters):
        assert classified(robot, topic, message_type) == SHOWN


def test_a_camera_that_comes_back_compressed_is_followed() -> None:
    robot = Robot()
    with running_node() as node:
        assert classified(robot, "/image", Image) == SHOWN
        robot.close()
        other = Robot()  # DDS has one type a topic in each participant
        try:
            assert classified(other, "/image", CompressedImage) == SHOWN
        finally:
            other.close()
        wait_until(
            lambda: "subscribed to '/image' (sensor_msgs/msg/Comp" in node.output(), "a line"
        )


@pytest.mark.parametrize(
    ("parameters", "qos", "message_type", "said"),
    [
        ({"image_transport": "raw"}, RELIABLE, CompressedImage, "set image_transport to auto"),
        ({}, RELIABLE, String, "the topic has the type std_msgs/msg/String"),
        ({"qos_reliability": "reliable"}, BEST_EFFORT, Image, "set qos_reliability to best_effort"),
    ],
)
def test_why_no_image_can_come_is_said(
    robot: Robot, parameters: dict[str, Any], qos: Any, message_type: Any, said: str
) -> None:
    robot.node.create_publisher(message_type, "/image", qos)
    with running_node(**parameters) as node:
        wait_until(lambda: said in node.output(), said)


LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def test_a_latched_image_of_before_arrives_with_overrides(robot: Robot) -> None:
    robot.node.create_publisher(Image, "/image", LATCHED).publish(image(PICTURE, 7))
    overrides: dict[str, Any] = {
        "qos_overrides./image.subscription.durability": "transient_local",
        "qos_overrides./image.subscription.reliability": "reliable",
    }
    with running_node(**overrides) as node:
        wait_until(lambda: robot.classifications, "the answer")
        assert robot.classifications[0].header.stamp.sec == 7
        assert "has sent none" not in node.output()


def test_a_silent_publisher_is_named(robot: Robot) -> None:
    robot.node.create_publisher(Image, "/image", LATCHED).publish(image(PICTURE, 7))
    with running_node() as node:
        said = (
            f"/{robot.node.get_name()} publishes '/image' (sensor_msgs/msg/Image) and has sent none"
        )
        wait_until(lambda: said in node.output(), said)
        assert (
            "qos_overrides./image.subscription.durability set to transient_local" in node.output()
        )


def test_a_topic_that_nobody_publishes_is_said_once(robot: Robot) -> None:
    robot.node.create_publisher(Image, "/camera/image_raw", RELIABLE)
    with running_node() as node:
        # Under load the other topic may be discovered after the first complaint.
        said = "images are published on /camera/image_raw"
        wait_until(lambda: said in node.output(), "the complaint")
        time.sleep(2.0)
        assert node.output().count(said) == 1


def test_what_was_lost_on_the_way_is_said_once(robot: Robot) -> None:
    with running_node() as node:
        publisher = robot.publisher("image/compressed", CompressedImage)
        gray = array("B", cv2.imencode(".jpg", PICTURE[..., 1])[1].tobytes())
        for stamp in (1, 2, 3):
            message = packed(stamp, "bayer_rggb8; jpeg compressed mono8")
            message.data = gray
            robot.answer(publisher, message)
        assert node.output().count("made gray") == 1


def test_whole_numbers_for_floating_point_parameters(robot: Robot, tmp_path: Path) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text("/**:\n  ros__parameters:\n    max_rate: 10\n    max_latency: 1\n")
    given: dict[str, Any] = {
        **{"score_threshold": 0, "min_rate": 5, "stale_after": 5, "watchdog": 10},
        **{"bpu_timeout": 1, "diagnostics_period": 2},
    }
    with running_node("--params-file", str(path), **given):
        for name, value in {**given, "max_rate": 10, "max_latency": 1}.items():
            assert (robot.get_parameter(name), name) == (float(value), name)
            assert isinstance(robot.get_parameter(name), float)
        for name in ("max_rate", "watchdog"):
            assert robot.set_parameter(name, 1).successful
            assert robot.get_parameter(name) == 1.0
            assert isinstance(robot.get_parameter(name), float)


def test_bounds_hold_for_whole_numbers_too(robot: Robot) -> None:
    with running_node():
        assert not robot.set_parameter("score_threshold", 2).successful
        assert robot.get_parameter("score_threshold") == 0.0


def test_one_camera_may_be_named_without_a_list(robot: Robot) -> None:
    with running_node(cameras="front"):
        robot.publisher("front/image")
        assert list(robot.get_parameter("cameras")) == ["front"]
