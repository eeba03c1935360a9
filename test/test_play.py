# SPDX-License-Identifier: Apache-2.0
"""`repghost play` over real DDS: what was recorded arrives, and the node answers it as offline."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.bags import (
    COMPRESSED,
    IMAGE,
    ROS1,
    ROS2,
    compressed,
    film,
    image,
    stamp_ns,
    write_ros1,
    write_ros2,
)
from helpers.graph import RELIABLE, WAIT, Robot, running_node, wait_until
from rclpy.qos import QoSProfile
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.cli import main
from repghost_ros.cli.report import SCHEMA
from repghost_ros.ros import messages
from repghost_ros.runs.answers import read_results
from repghost_ros.sources.types import ros2_topics

FRAMES = 12


def play(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "repghost_ros.cli", "play", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    return out


def test_years_without_an_image_are_skipped(robot: Robot, tmp_path: Path) -> None:
    """A clock that was set while the bag was recorded jumps from 1970 to today."""
    writer = Writer2(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP)
    with writer:
        connection = writer.add_connection("/image", IMAGE, typestore=ROS2)
        for index, (_, picture) in enumerate(film(4)):
            raw = ROS2.serialize_cdr(image(ROS2, index, picture), IMAGE)
            writer.write(connection, index * 10**8 if index < 2 else stamp_ns(index), raw)
    images = robot.collect(Image, "/image")
    process = play(str(tmp_path / "bag"), "--wait", "1")
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    wait_until(lambda: len(images) == 4, "all images")
    assert "hours without an image are skipped" in err


def test_publishes_what_was_recorded(robot: Robot, tmp_path: Path) -> None:
    pictures = [picture for _, picture in film(FRAMES)]
    topics = {
        "/left": [image(ROS2, i, picture) for i, picture in enumerate(pictures)],
        "/right/compressed": [compressed(ROS2, i, shown) for i, shown in enumerate(pictures[:5])],
    }
    bag = write_ros2(tmp_path / "bag", topics)
    left = robot.collect(Image, "/front")
    right = robot.collect(CompressedImage, "/right/compressed")
    arguments = ["--rate", "10", "--wait", "1", "--json"]
    out = ended(play(str(bag), *arguments, "--ros-args", "-r", "/left:=/front"))
    assert json.loads(out) == {
        "schema": SCHEMA,
        "command": "play",
        "results": [
            {"topic": "/left", "messages": FRAMES},
            {"topic": "/right/compressed", "messages": 5},
        ],
    }
    wait_until(lambda: len(left) == FRAMES and len(right) == 5, "all messages")
    for received, recorded in zip(
        [*left, *right], [*topics["/left"], *topics["/right/compressed"]]
    ):
        assert received.header.stamp.nanosec == recorded.header.stamp.nanosec
        assert received.header.frame_id == "camera"
        assert bytes(received.data) == bytes(recorded.data)


def test_a_ros1_bag_of_which_one_topic_is_wanted(robot: Robot, tmp_path: Path) -> None:
    pictures = [picture for _, picture in film(3)]
    topics = {
        name: [image(ROS1, i, picture) for i, picture in enumerate(pictures)]
        for name in ("/left", "/right")
    }
    bag = write_ros1(tmp_path / "a.bag", topics)
    left, right = robot.collect(Image, "/left"), robot.collect(Image, "/right")
    out = ended(play(str(bag), "--topic", "/right", "--wait", "1"))
    assert out == "/right: 3 messages published\n"
    wait_until(lambda: len(right) == 3, "all messages")
    assert [m.encoding for m in right] == ["bgr8"] * 3
    assert bytes(right[2].data) == pictures[2].tobytes()
    assert not left


def test_the_clock_is_the_bags(robot: Robot, tmp_path: Path) -> None:
    bag = write_ros2(
        tmp_path / "bag",
        {"/image": [image(ROS2, i, picture) for i, (_, picture) in enumerate(film(FRAMES))]},
    )
    clock = robot.collect(Clock, "/clock")
    images = robot.collect(Image, "/image")
    ended(play(str(bag), "--clock", "--wait", "1", "--rate", "0.5"))
    wait_until(lambda: len(images) == FRAMES, "all messages")
    times = [m.clock.sec * 10**9 + m.clock.nanosec for m in clock]
    assert times == sorted(times)
    assert set(times) >= {stamp_ns(i) + 5_000_000 for i in range(1, FRAMES)}
    assert len(times) > FRAMES  # it ticks between the images too


def test_loops_until_interrupted(robot: Robot, tmp_path: Path) -> None:
    bag = write_ros2(
        tmp_path / "bag",
        {"/image": [image(ROS2, i, shown) for i, (_, shown) in enumerate(film(3))]},
    )
    images = robot.collect(Image, "/image")
    process = play(str(bag), "--loop", "--rate", "10", "--wait", "1")
    wait_until(lambda: len(images) >= 10, "the fourth round")
    process.send_signal(signal.SIGINT)
    assert "/image: " in ended(process)
    assert [m.header.stamp.nanosec for m in images[:7]] == [
        stamp_ns(i % 3) % 10**9 for i in range(7)
    ]


@pytest.mark.parametrize("kind", ["raw", "compressed"])
def test_live_answers_equal_offline_ones(robot: Robot, kind: str, tmp_path: Path) -> None:
    """Frame by frame, through the real node in a process of its own."""
    if kind == "raw":
        topic, recorded = "/image", [image(ROS2, i, p) for i, (_, p) in enumerate(film(FRAMES))]
    else:
        topic = "/image/compressed"
        recorded = [compressed(ROS2, i, p, ".jpg") for i, (_, p) in enumerate(film(FRAMES))]
        assert recorded[0].__msgtype__ == COMPRESSED
    bag, offline = write_ros2(tmp_path / "bag", {topic: recorded}), tmp_path / "offline.jsonl"
    assert main(["replay", str(bag), "--model", "demo", "--out", str(offline)]) == 0
    whole: dict[str, Any] = {"qos_reliability": "reliable", "qos_depth": 100, "queue_depth": 100}
    live = robot.collect(messages.Classification, "/repghost/classification", RELIABLE)
    with running_node(image_transport=kind, **whole):
        wait_until(lambda: robot.node.count_publishers("/repghost/classification"), "the node")
        wait_until(lambda: robot.node.count_subscribers(topic), "its subscription")
        ended(play(str(bag), "--wait", "1"))
        wait_until(lambda: len(live) == FRAMES, "all answers")
    expected = read_results(offline)
    for answer, message in zip(expected, live, strict=True):
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == answer.stamp_ns
        assert message.header.frame_id == answer.frame_id
        results = messages.results(message)
        assert [each.class_id for each in results] == [each.class_id for each in answer.results]
        scores = [each.score for each in answer.results]
        assert [each.score for each in results] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("topic", ["/other", ""])
def test_nothing_to_play(topic: str, tmp_path: Path, capsys: Any) -> None:
    text = ROS2.types["std_msgs/msg/String"]("hello")
    bag = write_ros2(tmp_path / "bag", {"/chatter": [text]})
    assert main(["play", str(bag), *(["--topic", topic] if topic else [])]) == 1
    assert "holds no images, only /chatter" in capsys.readouterr().err


def test_nothing_is_lost_however_fast_it_is_played(robot: Robot, tmp_path: Path) -> None:
    frames = [compressed(ROS2, i, shown, ".jpg") for i, (_, shown) in enumerate(film(4))] * 150
    bag = write_ros2(tmp_path / "bag", {"/image": frames})
    received = robot.collect(CompressedImage, "/image", QoSProfile(depth=1000))
    ended(play(str(bag), "--rate", "1000", "--wait", "1"))
    wait_until(lambda: len(received) == 600, "all messages")


def test_waits_for_a_recorder_and_says_so(robot: Robot, tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", {"/image": [image(ROS2, 0, film(1)[0][1])]})
    process = play(str(bag), "--wait-for", "/answers")
    assert process.stderr is not None
    # Cyclone DDS has a line of its own before it.
    assert any("waiting for subscribers of /answers" in line for line in process.stderr)
    received = robot.collect(Image, "/image")
    robot.collect(Image, "/answers")
    ended(process)
    wait_until(lambda: len(received) == 1, "the image")


def test_an_interrupt_is_no_success(robot: Robot, tmp_path: Path) -> None:
    bag = write_ros2(
        tmp_path / "bag",
        {"/image": [image(ROS2, i, shown) for i, (_, shown) in enumerate(film(3))]},
    )
    images = robot.collect(Image, "/image")
    process = play(str(bag), "--rate", "0.01", "--wait", "1")
    wait_until(lambda: images, "the first image")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert out == "/image: 1 messages published\n"


def test_a_broken_message_of_ros1_is_left_out(robot: Robot, tmp_path: Path) -> None:
    images = [image(ROS1, i, shown) for i, (_, shown) in enumerate(film(3))]
    bag = tmp_path / "a.bag"
    with Writer1(bag) as writer:
        connection = writer.add_connection("/image", IMAGE, typestore=ROS1)
        for index, message in enumerate(images):
            raw = bytes(ROS1.serialize_ros1(message, IMAGE))
            writer.write(connection, stamp_ns(index), raw[: 20 if index == 1 else None])
    received = robot.collect(Image, "/image")
    process = play(str(bag), "--wait", "1")
    out, told = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (1, "/image: 2 messages published\n")
    assert "1 messages on /image were left out" in told
    wait_until(lambda: len(received) == 2, "the others")


@pytest.mark.parametrize("name", ["/cam/0/image_raw", "/front-left/image_raw"])
def test_names_that_ros2_does_not_allow_are_mapped(name: str, robot: Robot, tmp_path: Path) -> None:
    shown = film(3)
    images = [image(ROS1, index, picture) for index, (_, picture) in enumerate(shown)]
    bag = write_ros1(tmp_path / "a.bag", {name: images})
    allowed = ros2_topics([name])[name]
    received = robot.collect(Image, allowed)
    process = play(str(bag), "--wait", "1")
    out, told = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (0, f"{name}: 3 messages published\n")
    assert f"'{name}' is published as '{allowed}'" in told
    wait_until(lambda: len(received) == 3, "all messages")
    assert bytes(received[2].data) == shown[2][1].tobytes()


def test_wrong_ros_arguments_are_a_wrong_command_line(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", {"/image": [image(ROS2, 0, film(1)[0][1])]})
    process = play(str(bag), "--ros-args", "-r", "foo")
    _, told = process.communicate(timeout=WAIT)
    assert process.returncode == 2
    assert "--ros-args" in told
    assert "Traceback" not in told


def test_without_ros_it_says_what_is_missing(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", {"/image": [image(ROS2, 0, film(1)[0][1])]})
    # In a process of its own: here rclpy, and what was imported with it, is loaded already.
    without_ros = (
        "import sys; sys.modules['rclpy'] = None; "
        "from repghost_ros.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", without_ros, "play", str(bag)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "source a ROS 2 installation" in done.stderr
