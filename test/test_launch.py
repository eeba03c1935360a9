"""The launch files, for real: the node comes up, classifies, and ends cleanly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("launch", "launch_ros", "launch_testing"):
    pytest.importorskip(module, reason=f"{module} is not on PyPI: it needs a ROS 2 installation")

HERE = Path(__file__).parent


def test_every_argument_is_described() -> None:
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(HERE.parent / "launch" / "classify.launch.py"))
    description = source.get_launch_description(LaunchContext())
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {"model", "backend", "image", "namespace", "params_file", "log_level", "workers"} <= set(
        arguments
    )
    assert all(len(argument.description) > 10 for argument in arguments.values())


def test_launches_the_node_and_classifies() -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "launch_testing.launch_test", str(HERE / "launch_classify.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
