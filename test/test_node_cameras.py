# SPDX-License-Identifier: Apache-2.0
"""Several cameras, regions, rates and diagnostics of the node over DDS."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from helpers.graph import Robot, best, image, running_node, sign, wait_until

from repghost_ros.ros import messages

NAMED = ("-r", "__node:=eyes", "-r", "__ns:=/head")


NODE = "head/eyes"


def came(answers: list[Any], count: int) -> bool:
    """Return whether so many answers have come."""
    return len(answers) == count


def level(received: list[Any], name: str) -> bytes | None:
    """Return the latest level of a status."""
    found = [s.level for message in received for s in message.status if s.name == name]
    return found[-1] if found else None


def test_cameras_share_the_model_and_keep_apart(robot: Robot) -> None:
    answers = {
        camera: robot.collect(messages.Classification, f"/head/eyes/{camera}/classification")
        for camera in ("left", "right")
    }
    shown = {"left": "stop", "right": "yield"}
    with running_node(*NAMED, cameras="[left, right]"):
        publishers = {c: robot.publisher(f"/head/{c}/image") for c in shown}
        for stamp in range(1, 6):
            for camera, label in shown.items():
                publishers[camera].publish(image(sign(label), stamp=stamp))
            for camera in shown:
                wait_until(partial(came, answers[camera], stamp), f"answer {stamp} of {camera}")
    for camera, label in shown.items():
        assert [a.header.stamp.sec for a in answers[camera]] == [1, 2, 3, 4, 5]
        assert [best(a) for a in answers[camera]] == [label] * 5


def test_a_region_is_classified_alone(robot: Robot) -> None:
    both = np.hstack([sign("stop"), sign("yield")])
    with running_node(*NAMED):
        publisher = robot.publisher("/head/image")
        assert robot.set_parameter("roi", [0, 0, 320, 240]).successful
        assert best(robot.answer(publisher, image(both, stamp=1))) == "stop"
        assert robot.set_parameter("roi", [320, 0, 320, 240]).successful
        assert best(robot.answer(publisher, image(both, stamp=2))) == "yield"
        refused = robot.set_parameter("roi", [0, 0, 0, 240])
        assert not refused.successful
        assert "roi" in refused.reason
        # Outside the frame: that frame is refused, the next region works again.
        assert robot.set_parameter("roi", [5000, 0, 10, 10]).successful
        publisher.publish(image(both, stamp=3))
        assert robot.set_parameter("roi", [0, 0, 0, 0]).successful
        robot.answer(publisher, image(both, stamp=4))


def test_frames_above_the_rate_are_skipped(robot: Robot) -> None:
    received = robot.collect(DiagnosticArray, "/diagnostics")
    with running_node(*NAMED, max_rate="0.5", diagnostics_period="0.1"):
        publisher = robot.publisher("/head/image")
        robot.answer(publisher, image(sign("stop"), stamp=1))
        for stamp in range(2, 8):
            publisher.publish(image(sign("stop"), stamp=stamp))
        assert robot.set_parameter("max_rate", 0.0).successful
        robot.answer(publisher, image(sign("stop"), stamp=100))
        assert [c.header.stamp.sec for c in robot.classifications] == [1, 100]

        def told(count: str) -> int:
            each = [s for m in received for s in m.status if s.name == "head/eyes: image"]
            return sum(int(v.value) for s in each for v in s.values if v.key == count)

        wait_until(lambda: told("frames answered") == 2, "the account of them")
        assert (told("frames in"), told("frames skipped")) == (8, 6)


def test_diagnostics_follow_the_camera(robot: Robot) -> None:
    received = robot.collect(DiagnosticArray, "/diagnostics")
    with running_node(*NAMED, diagnostics_period="0.2", stale_after="0.5"):
        publisher = robot.publisher("/head/image")
        stamps = iter(range(1, 10**6))

        def while_publishing(wanted: bytes, broken: bool) -> Any:
            def step() -> bool:
                message = image(sign("stop"), stamp=next(stamps))
                if broken:
                    message.step = 1
                publisher.publish(message)
                return level(received, "head/eyes: image") == wanted

            return wait_until(step, f"level {wanted!r}")

        while_publishing(DiagnosticStatus.OK, broken=False)
        while_publishing(DiagnosticStatus.WARN, broken=True)
        while_publishing(DiagnosticStatus.OK, broken=False)
        wait_until(
            lambda: level(received, "head/eyes: image") == DiagnosticStatus.STALE, "staleness"
        )
        while_publishing(DiagnosticStatus.OK, broken=False)
        assert level(received, "head/eyes: model") == DiagnosticStatus.OK
        assert robot.change_state(4)  # deactivate
        wait_until(
            lambda: level(received, "head/eyes: model") == DiagnosticStatus.WARN, "inactivity"
        )


def test_a_model_that_cannot_be_downloaded_is_explained(robot: Robot, tmp_path: Any) -> None:
    environment = {"REPGHOST_HOME": str(tmp_path), "REPGHOST_MODEL_URL": "http://127.0.0.1:9/"}
    with running_node(*NAMED, env=environment, model=150, backend="onnx") as node:
        wait_until(lambda: "cannot be downloaded" in node.output(), "the explanation")
        assert "http://127.0.0.1:9/repghostnet_150.onnx" in node.output()
        assert f"{tmp_path}/repghostnet_150.onnx" in node.output()
        assert robot.state() == "unconfigured"
