# SPDX-License-Identifier: Apache-2.0
"""What a frame costs in counts, so that a slow-down is seen without a clock.

Calls of Python's functions on the node's own threads, rounds of Python's lock (calls of the helper),
allocations, and copies of the message; over DDS, on the emulated board.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
from helpers.counting import Counting
from helpers.graph import RELIABLE, Robot, image
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

import repghost_ros.native as native
from emulator.board import Emulator, write_model
from repghost_ros.ros import camera
from repghost_ros.ros.node import ClassifierNode
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.cdr import Serialized

if native.library() is None:
    pytest.skip("the compiled helper is not built: `make venv`", allow_module_level=True)
HOT = ("intake", "worker")
PYTHON_CALLS = 60
"""At most for each frame; 57 when this was written, with Python 3.11."""
BUILTIN_CALLS = 72
"""Calls of functions of C from Python, at most for each frame; 68 when this was written."""
FRAMES = 15
SETTLING = 0.03
"""Seconds in which a node that has something to do counts something."""
NAMES = (
    *("call", "c_call", "allocations", "large copies", "messages read"),
    *(f"repghost_{name}" for name in ("receive", "run", "scale", "publish")),
)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting(tmp_path)
    monkeypatch.setattr(native, "library", lambda: counting)
    return counting


class Profile:
    """Counts calls on the threads that every frame passes, from their start on."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, _: Any, event: str, __: Any) -> None:
        if threading.current_thread().name.startswith(HOT):
            self.calls[event] += 1


@pytest.fixture
def profile() -> Iterator[Profile]:
    counts = Profile()
    threading.setprofile(counts)
    yield counts
    threading.setprofile(None)  # type: ignore[arg-type]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Serialized]:
    """Return the messages that Python has read."""
    read: list[Serialized] = []
    original = Serialized._read

    def recorded(self: Serialized) -> Any:
        read.append(self)
        return original(self)

    monkeypatch.setattr(Serialized, "_read", recorded)
    return read


@pytest.fixture
def node(
    robot: Robot,
    board: Emulator,
    helper: Counting,
    profile: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ClassifierNode]:
    # What is done for one frame in several, now and then, is not counted.
    monkeypatch.setattr(camera, "_COUNT_PERIOD", 1e9)
    model = write_model(tmp_path / "model.bin")
    overrides = {"model_path": str(model), "workers": 1, "autostart": False}
    parameters = [Parameter(name, value=value) for name, value in overrides.items()]
    node = ClassifierNode(context=robot.context, parameter_overrides=parameters)
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()


def raw(encoding: str, width: int, height: int) -> Image:
    message = image(np.zeros((height, width, 3), np.uint8), 0, encoding)
    if encoding == "nv12":
        message.step, message.data = width, bytes(width * height * 3 // 2)
    return message


def jpeg(width: int, height: int) -> CompressedImage:
    data = cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()
    return CompressedImage(format="jpeg", data=data)


MESSAGES = {
    "nv12 of the model's size": (lambda: raw("nv12", 224, 224), 0),
    "1280x720 nv12": (lambda: raw("nv12", 1280, 720), 2),
    "640x480 bgr8": (lambda: raw("bgr8", 640, 480), 1),
    "640x480 jpeg": (lambda: jpeg(640, 480), 2),
}
"""How to make a message, and in how many parts it is scaled."""


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_frame_costs_no_more_than_when_it_was_counted(
    robot: Robot,
    node: ClassifierNode,
    helper: Counting,
    profile: Profile,
    parsed: list[Serialized],
    kind: str,
) -> None:
    make, parts = MESSAGES[kind]
    if "jpeg" in kind and turbojpeg.library() is None:
        pytest.skip("libturbojpeg is not installed")
    message = make()
    topic = "image/compressed" if "jpeg" in kind else "image"
    publisher = robot.publisher(topic, type(message), RELIABLE)
    costs: list[dict[str, int]] = []

    def counted() -> Counter[str]:
        counts = profile.calls + helper.calls
        counts["allocations"], counts["large copies"] = helper.allocations, helper.large_copies
        counts["messages read"] = len(parsed)
        return counts

    def settled() -> Counter[str]:
        """Return the counts once the node waits again."""
        counts, former = counted(), None
        while counts != former:
            time.sleep(SETTLING)
            counts, former = counted(), counts
        return counts

    for number in range(FRAMES):
        before = settled()
        message.header.stamp.sec = number + 1
        robot.answer(publisher, message)
        after = settled()
        costs.append({name: after[name] - before[name] for name in NAMES})
    cost = {name: median(each[name] for each in costs) for name in NAMES}
    assert cost["repghost_run"] == cost["repghost_publish"] == cost["repghost_receive"] == 1
    assert cost["repghost_scale"] == cost["messages read"] == cost["large copies"] == 0, cost
    assert cost["allocations"] == parts
    assert cost["call"] <= PYTHON_CALLS, cost
    assert cost["c_call"] <= BUILTIN_CALLS, cost
