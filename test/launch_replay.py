# SPDX-License-Identifier: Apache-2.0
"""A regression test of a live robot, as its team would write it: run it with `launch_test`.

Plays a bag into the node that the launch file starts and compares the answers with those of an earlier
day (here: of `repghost replay`, just before).
"""

from __future__ import annotations

import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import launch_testing.actions
import launch_testing.asserts
from helpers.bags import PLAYABLE, sign_bag
from helpers.graph import Robot, wait_until
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from repghost_ros.cli import main
from repghost_ros.ros import messages
from repghost_ros.runs.answers import Answer, read_results
from repghost_ros.runs.difference import compare

ROOT = Path(__file__).parent.parent
FRAMES = 12
FOLDER = Path(tempfile.mkdtemp(prefix="launch_replay_"))
BAG, EXPECTED = FOLDER / "bag", FOLDER / "expected.jsonl"


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    """Start the robot's launch file, and a player that waits for the node."""
    sign_bag(BAG, FRAMES, storage=PLAYABLE)
    assert main(["replay", str(BAG), "--model", "demo", "--out", str(EXPECTED)]) == 0
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(ROOT / "launch" / "classify.launch.py")),
        launch_arguments={
            "model": "demo",
            "image": "/camera/image_raw",
            "params_file": str(ROOT / "config" / "replay.yaml"),
        }.items(),
    )
    # The second subscriber is the test itself: it is ready when it listens.
    command = [sys.executable, "-m", "repghost_ros.cli"]  # on PATH may be another installation
    player = ExecuteProcess(
        cmd=[*command, "play", str(BAG), "--clock", "--wait", "2"], output="screen"
    )
    return (
        LaunchDescription([node, player, launch_testing.actions.ReadyToTest()]),
        {"player": player},
    )


class TestReplay(unittest.TestCase):
    """While the node runs."""

    def test_answers_are_those_of_an_earlier_day(
        self, proc_info: launch_testing.ProcInfoHandler, player: ExecuteProcess
    ) -> None:
        robot = Robot()
        try:
            answers_topic = "/repghost/classification"
            wait_until(lambda: robot.node.count_publishers(answers_topic), "the node")
            time.sleep(0.5)  # the node's side matches a moment later, and DDS does not tell when
            robot.collect(messages.Image, "/camera/image_raw")
            live = robot.classifications
            wait_until(lambda: len(live) >= FRAMES, "all answers")
            proc_info.assertWaitForShutdown(player, timeout=10)
        finally:
            robot.close()
        answers = [
            Answer(
                "live",
                0,
                message.header.stamp.sec * 10**9 + message.header.stamp.nanosec,
                message.header.frame_id,
                tuple(messages.results(message)),
            )
            for message in live
        ]
        difference = compare(read_results(EXPECTED), answers)
        assert difference.agreement == 1.0
        assert difference.max_drift < 0.001


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """After it was interrupted."""

    def test_ends_cleanly(self, proc_info: launch_testing.ProcInfoHandler) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
