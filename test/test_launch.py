"""The launch file as `ros2 launch` runs it: the node comes up, classifies, and ends cleanly."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("launch", "launch_ros"):
    pytest.importorskip(module, reason=f"{module} is not on PyPI: it needs a ROS 2 installation")

from graph import Robot, image  # noqa: E402
from test_node import best, sign  # noqa: E402

ROOT = Path(__file__).parent.parent
LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = dict(a.split(":=") for a in sys.argv[2:])
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments.items())])
)
sys.exit(service.run())
"""


def test_every_argument_is_described() -> None:
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(ROOT / "launch" / "classify.launch.py"))
    description = source.get_launch_description(LaunchContext())
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {"model", "backend", "image", "namespace", "params_file", "log_level", "workers"} <= set(
        arguments
    )
    assert all(len(argument.description) > 10 for argument in arguments.values())


def test_launches_the_node_and_classifies() -> None:
    launched = subprocess.Popen(
        [
            *(sys.executable, "-c", LAUNCH, str(ROOT / "launch" / "classify.launch.py")),
            *("model:=demo", "image:=/camera/color", "namespace:=robot1", "workers:=2"),
        ]
    )
    robot = Robot("robot1/repghost")
    try:
        publisher = robot.publisher("/camera/color")
        assert best(robot.answer(publisher, image(sign("stop"), stamp=1))) == "stop"
        assert robot.get_parameter("workers") == 2
        assert robot.get_parameter("queue_depth") == 4  # of config/classify.yaml
    finally:
        launched.send_signal(signal.SIGINT)
        assert launched.wait(30) == 0
        robot.close()
