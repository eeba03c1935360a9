# SPDX-License-Identifier: Apache-2.0
"""The node as a robot meets it: a process of its own behind real DDS."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.graph import (
    BEST_EFFORT,
    DEMO,
    LATCHED,
    RELIABLE,
    Robot,
    best,
    image,
    running_node,
    sign,
    wait_until,
)
from helpers.waiting import WAIT
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import VisionInfo

from repghost_ros.paths import share
from repghost_ros.ros import messages
from repghost_ros.sources.signs import LABELS


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    """Run a robot whose node has its defaults."""
    robot = Robot()
    with running_node():
        robot.publisher()  # the node is active once it subscribes
        yield robot
    robot.close()


@pytest.fixture
def other() -> Iterator[Robot]:
    """Open a robot whose node `other` is started by the test itself."""
    robot = Robot("other")
    yield robot
    robot.close()


NAMED = ("-r", "__node:=other", "-r", "image:=other_image")


# --- answers -------------------------------------------------------------------------------------


def test_names_every_sign_and_passes_the_header_on(robot: Robot) -> None:
    publisher = robot.publisher()
    right = 0
    for number, label in enumerate(LABELS):
        answer = robot.answer(publisher, image(sign(label), stamp=1000 + number))
        scores = [result.score for result in messages.results(answer)]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert answer.header.frame_id == "camera_optical_frame"
        right += best(answer) == label
    assert right >= len(LABELS) - 1


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best_effort"])
def test_matches_publishers_of_either_reliability(robot: Robot, qos: Any) -> None:
    publisher = robot.publisher(qos=qos)
    stamp = 2000 + int(qos.reliability)
    assert best(robot.answer(publisher, image(sign("stop"), stamp=stamp))) == "stop"


def test_reliable_subscription_takes_reliable_publishers_only(other: Robot) -> None:
    with running_node(*NAMED, qos_reliability="reliable") as node:
        reliable = other.publisher("other_image", qos=RELIABLE)
        other.node.create_publisher(Image, "other_image", BEST_EFFORT)
        assert best(other.answer(reliable, image(sign("stop"), stamp=1))) == "stop"
        wait_until(lambda: "incompatible QoS" in node.output(), "the warning")


ENCODERS = {
    "rgb8": lambda bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB),
    "bgra8": lambda bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA),
    "rgba8": lambda bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA),
}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_sees_the_same_in_every_packed_encoding(robot: Robot, encoding: str) -> None:
    publisher = robot.publisher()
    pixels = ENCODERS[encoding](sign("yield", seed=3))
    message = image(sign("yield", seed=3), stamp=3000)
    message.header.frame_id = encoding
    message.encoding = encoding
    message.step = pixels.shape[1] * pixels.shape[2]
    message.data = array("B", pixels.tobytes())
    assert best(robot.answer(publisher, message)) == "yield"


@pytest.mark.parametrize("encoding", ["nv12", "yuv422_yuy2"])
def test_sees_the_same_in_yuv(robot: Robot, encoding: str) -> None:
    bgr = sign("no entry", seed=3)
    height, width, _ = bgr.shape
    i420 = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    luma, u, v = i420[:height], i420[height : height * 5 // 4], i420[height * 5 // 4 :]
    u, v = u.reshape(height // 2, -1), v.reshape(height // 2, -1)
    if encoding == "nv12":
        data, step = np.vstack([luma, np.dstack([u, v]).reshape(height // 2, width)]), width
    else:
        chroma = np.dstack([u, v]).repeat(2, axis=0).reshape(height, width)
        data, step = np.dstack([luma, chroma]), width * 2
    message = image(bgr, stamp=3100)
    message.header.frame_id = message.encoding = encoding
    message.step, message.data = step, array("B", np.ascontiguousarray(data).tobytes())
    assert best(robot.answer(robot.publisher(), message)) == "no entry"


def test_compressed_images_and_their_faults(other: Robot) -> None:
    with running_node(*NAMED, image_transport="compressed") as node:
        publisher = other.publisher("other_image/compressed", CompressedImage)

        def compressed(extension: str, data: bytes | None = None) -> CompressedImage:
            stamped = image(sign("stop"), stamp=1).header
            stamped.frame_id = f"{extension} {data is None}"
            if data is None:
                data = cv2.imencode(extension, sign("stop"))[1].tobytes()
            return CompressedImage(header=stamped, format=extension[1:], data=array("B", data))

        assert best(other.answer(publisher, compressed(".jpg"))) == "stop"
        whole = bytes(compressed(".jpg").data)
        for broken in (b"", b"no picture at all", whole[: len(whole) // 2], whole[:20]):
            publisher.publish(compressed(".jpg", broken))
        assert best(other.answer(publisher, compressed(".png"))) == "stop"
        assert len(other.classifications) == 2
        assert "refused: the compressed image" in node.output()


def test_bad_messages_cost_only_themselves(robot: Robot) -> None:
    publisher = robot.publisher()

    def broken(**changes: Any) -> Image:
        message = image(sign("stop"), stamp=4000)
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    before = len(robot.classifications)
    for number, bad in enumerate(
        [
            broken(step=10),
            broken(data=array("B", b"short")),
            broken(data=array("B")),
            broken(width=0),
            broken(height=0),
            broken(encoding="no such encoding"),
            broken(encoding=""),
            broken(width=2**31, height=2**31, step=2**32 - 1),
        ]
    ):
        publisher.publish(bad)
        good = image(sign("stop"), stamp=4001 + number)
        assert best(robot.answer(publisher, good)) == "stop"
    assert len(robot.classifications) == before + 8


def test_odd_sizes_and_padded_rows(robot: Robot) -> None:
    pixels = sign("stop", width=321, height=243)
    message = image(pixels, stamp=5000)
    message.step = 321 * 3 + 13
    padded = np.zeros((243, message.step), np.uint8)
    padded[:, : 321 * 3] = pixels.reshape(243, -1)
    message.data = array("B", padded.tobytes())
    assert best(robot.answer(robot.publisher(), message)) == "stop"


# --- topics --------------------------------------------------------------------------------------


def test_vision_info_is_latched_and_leads_to_the_labels(robot: Robot) -> None:
    received = robot.collect(VisionInfo, "/repghost/vision_info", LATCHED)
    info = wait_until(lambda: received and received[0], "vision_info")
    assert info.method == "RepGhost demo"
    assert info.database_location == "/repghost/class_labels"
    assert tuple(robot.get_parameter("class_labels")) == LABELS


def test_overlay_is_published_while_someone_looks(robot: Robot) -> None:
    publisher = robot.publisher()
    pixels = sign("stop")
    overlays = robot.collect(Image, "/repghost/overlay")
    stamps = iter(range(6000, 7000))
    while not overlays:
        robot.answer(publisher, image(pixels, stamp=next(stamps)))
    overlay = overlays[0]
    assert (overlay.width, overlay.height, overlay.encoding) == (320, 240, "rgb8")
    drawn = np.frombuffer(overlay.data, np.uint8).reshape(240, 320, 3)[..., ::-1]
    difference = np.abs(drawn.astype(int) - pixels).max(axis=2)
    assert (difference > 60).any()  # the text
    assert np.median(difference) <= 4  # the picture


def test_namespace_and_remapping() -> None:
    robot = Robot("robot1/eye")
    with running_node("-r", "__ns:=/robot1", "-r", "__node:=eye", "-r", "image:=camera/color"):
        publisher = robot.publisher("/robot1/camera/color")
        assert best(robot.answer(publisher, image(sign("stop"), stamp=1))) == "stop"
    robot.close()


# --- parameters ----------------------------------------------------------------------------------


def test_answers_change_with_the_parameters(robot: Robot) -> None:
    publisher = robot.publisher()
    message = image(sign("stop"), stamp=7000)
    changes = {"top_k": 2, "class_id": "index", "score_threshold": 0.0}
    defaults = {name: robot.get_parameter(name) for name in changes}
    for name, value in changes.items():
        assert robot.set_parameter(name, value).successful
    results = messages.results(robot.answer(publisher, message))
    assert len(results) == 2
    assert results[0].class_id == str(LABELS.index("stop"))
    assert robot.set_parameter("score_threshold", 1.0).successful
    message.header.stamp.sec += 1
    assert messages.results(robot.answer(publisher, message)) == []
    for name, value in defaults.items():
        assert robot.set_parameter(name, value).successful


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("model", "999", "100, 111, 130, 150, 200"),
        ("model_path", "/nowhere/model.onnx", "/nowhere/model.onnx"),
        ("model_path", "/nowhere/model.txt", "not a model file"),
        ("labels_path", "/nowhere/labels.txt", "/nowhere/labels.txt"),
        ("backend", "tpu", "auto, bpu, onnx"),
        ("backend", "bpu", "no runtime is usable here"),
        ("resize", "squash", "stretch, crop, letterbox"),
        ("color_range", "wide", "auto, full, limited"),
        ("top_k", 0, ""),
        ("top_k", "five", ""),
        ("score_threshold", 1.5, ""),
        ("class_id", "wnid", "label, index"),
        ("workers", 2, ""),
        ("image_transport", "compressed", ""),
        ("class_labels", ["mine"], "labels_path"),
    ],
)
def test_bad_values_are_refused_with_a_reason(
    robot: Robot, name: str, value: Any, reason: str
) -> None:
    before = robot.get_parameter(name)
    result = robot.set_parameter(name, value)
    assert not result.successful
    assert result.reason
    assert reason in result.reason
    assert robot.get_parameter(name) == before
    publisher = robot.publisher()
    assert best(robot.answer(publisher, image(sign("stop"), stamp=hash(name) % 10**6))) == "stop"


def test_every_parameter_is_described(robot: Robot) -> None:
    for name in ("model", "top_k", "score_threshold", "workers", "queue_depth", "class_labels"):
        assert robot.describe_parameter(name).description
    assert robot.describe_parameter("workers").read_only
    assert robot.describe_parameter("top_k").integer_range[0].to_value == 1000
    assert "letterbox" in robot.describe_parameter("resize").additional_constraints


@pytest.mark.parametrize(
    "argument", ["model:=999", "top_k:=0", "score_threshold:=much", "resize:=squash"]
)
def test_a_bad_initial_value_ends_the_node_with_the_reason(argument: str) -> None:
    command = [sys.executable, "-m", "repghost_ros.ros.node", "--ros-args", "-p", argument]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert ended.returncode == 1
    assert argument.split(":=")[0] in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_models_are_swapped_while_frames_flow(robot: Robot) -> None:
    publisher = robot.publisher()
    before = robot.answer(publisher, image(sign("stop"), stamp=8000))
    labels = share() / "labels"
    refusal = robot.refusal("labels_path", str(labels / "imagenet.txt"))
    assert "1000 names, but the model has 17" in refusal
    assert robot.set_parameter("labels_path", str(labels / "demo.txt")).successful
    assert robot.set_parameter("model_path", DEMO).successful
    after = robot.answer(publisher, image(sign("stop"), stamp=8001))
    assert messages.results(after) == messages.results(before)
    assert robot.set_parameter("model_path", "").successful
    assert robot.set_parameter("labels_path", "").successful


# --- lifecycle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("events_executor", [True, False], ids=["events", "as_on_humble"])
def test_lifecycle_from_unconfigured_to_finalized(other: Robot, events_executor: bool) -> None:
    with running_node(*NAMED, autostart="false", events_executor=events_executor):
        assert other.state() == "unconfigured"
        assert other.change_state(Transition.TRANSITION_CONFIGURE)
        assert other.state() == "inactive"
        assert other.node.count_subscribers("other_image") == 0
        for stamp in (1, 2):  # twice: what was stopped starts again
            assert other.change_state(Transition.TRANSITION_ACTIVATE)
            publisher = other.publisher("other_image")
            assert best(other.answer(publisher, image(sign("stop"), stamp=stamp))) == "stop"
            assert other.change_state(Transition.TRANSITION_DEACTIVATE)
            wait_until(lambda: not other.node.count_subscribers("/other_image"), "unsubscribing")
            other.forget_publishers()
        assert other.change_state(Transition.TRANSITION_CLEANUP)
        assert other.state() == "unconfigured"
        assert other.change_state(Transition.TRANSITION_CONFIGURE)
        assert other.change_state(Transition.TRANSITION_ACTIVATE)
        assert other.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert other.state() == "finalized"


def test_a_missing_model_leaves_the_node_unconfigured_until_it_is_there(other: Robot) -> None:
    with running_node(*NAMED, model_path="/nowhere/model.onnx") as node:
        wait_until(lambda: "/nowhere/model.onnx" in node.output(), "the error")
        assert other.state() == "unconfigured"
        assert other.set_parameter("model_path", "").successful
        assert other.change_state(Transition.TRANSITION_CONFIGURE)
        assert other.change_state(Transition.TRANSITION_ACTIVATE)
        publisher = other.publisher("other_image")
        assert best(other.answer(publisher, image(sign("stop"), stamp=1))) == "stop"


def test_is_interrupted_cleanly_while_frames_flow(other: Robot) -> None:
    with running_node(*NAMED):  # checks the exit code
        publisher = other.publisher("other_image")
        other.answer(publisher, image(sign("stop"), stamp=1))
        for stamp in range(2, 30):
            publisher.publish(image(sign("stop"), stamp=stamp))
