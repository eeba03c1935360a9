"""The launch files, for real: the node comes up, classifies, and ends cleanly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bags import sign_bag

from repghost_ros.cli import main
from repghost_ros.runs.answers import read_results
from repghost_ros.runs.difference import compare

for module in ("launch", "launch_ros", "launch_testing"):
    pytest.importorskip(module, reason=f"{module} is not on PyPI: it needs a ROS 2 installation")

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", ["classify", "replay"])
def test_every_argument_is_described(file: str) -> None:
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(HERE.parent / "launch" / f"{file}.launch.py"))
    description = source.get_launch_description(LaunchContext())
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {"model", "backend", "image", "params_file", "log_level", "workers"} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())


def run(*command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    # This folder has a `ros2` for where there is none.
    programs = os.pathsep.join([os.environ["PATH"], str(HERE)])
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "PYTHONPATH": path, "PATH": programs},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("test", ["launch_classify.py", "launch_replay.py"])
def test_launch_testing(test: str) -> None:
    ended = run("launch_testing.launch_test", str(HERE / test))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_bag_is_replayed_and_its_answers_recorded(tmp_path: Path) -> None:
    bag, expected = sign_bag(tmp_path / "bag"), tmp_path / "expected.jsonl"
    assert main(["replay", str(bag), "--model", "demo", "--out", str(expected)]) == 0
    out = tmp_path / "out"
    arguments = f"bag:={bag} out:={out} model:=demo image:=/camera/image_raw"
    ended = run("launch_it", str(HERE.parent / "launch" / "replay.launch.py"), *arguments.split())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    difference = compare(read_results(expected), read_results(out))
    assert (difference.agreement, difference.missing, difference.extra) == (1.0, 0, 0)


@pytest.mark.parametrize("wrong", ["bag:=/absent", "model:=999", "out:=."])
def test_a_replay_that_fails_says_so(wrong: str, tmp_path: Path) -> None:
    right = {
        "bag": sign_bag(tmp_path / "bag"),
        "out": tmp_path / "out",
        "model": "demo",
        "image": "/camera/image_raw",
    }
    arguments = [f"{name}:={value}" for name, value in right.items()]
    ended = run("launch_it", str(HERE.parent / "launch" / "replay.launch.py"), *arguments, wrong)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "ended before the replay did" in ended.stdout + ended.stderr
