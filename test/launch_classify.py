# SPDX-License-Identifier: Apache-2.0
"""A launch_testing test of classify.launch.py: run it with `launch_test`, or see test_launch.py."""

from __future__ import annotations

import unittest
from pathlib import Path

import launch_testing
import launch_testing.actions
import launch_testing.asserts
from helpers.graph import Robot, best, image, sign
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

LAUNCH_FILE = Path(__file__).parent.parent / "launch" / "classify.launch.py"


def generate_test_description() -> LaunchDescription:
    """Include the launch file as a robot's own does."""
    arguments = {
        "model": "demo",
        "image": "/camera/color",
        "namespace": "robot1",
        "workers": "2",
        "log_level": "info",
    }
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=arguments.items()
            ),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestClassify(unittest.TestCase):
    """While the node runs."""

    def setUp(self) -> None:
        self.robot = Robot("robot1/repghost")

    def tearDown(self) -> None:
        self.robot.close()

    def test_names_the_sign(self) -> None:
        publisher = self.robot.publisher("/camera/color")
        answer = self.robot.answer(publisher, image(sign("stop"), stamp=1))
        assert best(answer) == "stop"

    def test_takes_arguments_and_the_params_file(self) -> None:
        assert self.robot.get_parameter("workers") == 2
        assert self.robot.get_parameter("queue_depth") == 4


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """After it was interrupted."""

    def test_ends_cleanly(self, proc_info: launch_testing.ProcInfoHandler) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
