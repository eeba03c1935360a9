# SPDX-License-Identifier: Apache-2.0
"""The programs in examples/, run as a reader would run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.bags import sign_bag
from helpers.launch_stub import started
from helpers.waiting import WAIT

from repghost_ros.sources.signs import render

EXAMPLES = Path(__file__).parent.parent / "examples"
# Before a sourced ROS's own, which stay.
PATHS = os.pathsep.join(filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")]))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, "PYTHONUNBUFFERED": "1"}


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sign(label: str, width: int = 320, height: int = 240) -> np.ndarray:
    return render(label, np.random.default_rng(1), width, height)


def test_classify(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "sign.png"), sign("yield"))
    name, first, *_ = run("classify.py", str(tmp_path)).splitlines()
    assert name == str(tmp_path / "sign.png")
    assert first.endswith("%  yield")


def test_regions(tmp_path: Path) -> None:
    shown = ["stop", "yield", "no entry", "roundabout"]
    one, two, three, four = map(sign, shown)
    cv2.imwrite(
        str(tmp_path / "four.png"), np.vstack([np.hstack([one, two]), np.hstack([three, four])])
    )
    lines = run("regions.py", str(tmp_path / "four.png")).splitlines()
    assert [line.split("% ")[1] for line in lines] == shown
    assert lines[3].startswith("around 480,360: ")


def test_replay_bag(tmp_path: Path) -> None:
    sign_bag(tmp_path / "drive", frames=6)
    for arguments in ((), ("/camera/image_raw",)):
        lines = run("replay_bag.py", str(tmp_path / "drive"), *arguments).splitlines()
        assert lines == ["    3 frames: priority road", "    3 frames: stop"]


@pytest.mark.parametrize("name", ["classify.py", "regions.py", "replay_bag.py"])
def test_without_arguments_an_example_says_how_it_is_called(name: str) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert f"python examples/{name} " in done.stderr
    assert "Traceback" not in done.stderr


def test_composed() -> None:
    """The driver sees the stop sign that a camera films, and Ctrl-C ends it well."""
    pytest.importorskip("rclpy")
    from helpers.graph import Robot, RunningNode, image, wait_until

    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "composed.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )
    running = RunningNode(process)
    threading.Thread(target=running.read, daemon=True).start()
    robot = Robot()
    try:
        publisher = robot.publisher()
        stamps = count(1)

        def stopped() -> bool:
            publisher.publish(image(sign("stop"), next(stamps)))
            return "[driver]: stop" in running.output()

        wait_until(stopped, "the driver to stop")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 0, running.output()
    finally:
        robot.close()
        process.kill()


def test_two_cameras() -> None:
    """It starts one node for both; test_launch.py compares the stand-in for `launch` with it."""
    (node,) = started(EXAMPLES / "two_cameras.launch.py")
    assert (node.package, node.executable) == ("repghost_ros", "classifier_node")
    assert node.parameters == {"model": "demo", "cameras": ["front", "rear"]}
