# SPDX-License-Identifier: Apache-2.0
"""The launch files, for real: the node comes up, classifies, and ends cleanly."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import pytest
from helpers import launch_stub
from helpers.bags import PLAYABLE, ROS2, film, image, sign_bag, write_ros2
from helpers.graph import Robot, RunningNode, wait_until
from helpers.launch_env import install
from helpers.waiting import WAIT

from repghost_ros.cli import main
from repghost_ros.runs.answers import read_results
from repghost_ros.runs.difference import compare

for module in ("launch", "launch_ros", "launch_testing"):
    pytest.importorskip(module, reason=f"{module} is not on PyPI: it needs a ROS 2 installation")

HERE = Path(__file__).parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def started(
    environment: dict[str, str], *command: str, stderr: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run a module as the leader of its own group, of which nothing is left however the test ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_nothing_is_left_of_a_launch_that_does_not_end(environment: dict[str, str]) -> None:
    file = str(HERE.parent / "launch" / "classify.launch.py")
    with started(
        environment, "launch_it", file, "model:=demo", stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        assert any("process started" in line for line in process.stdout)
        assert is_group(process.pid)
    wait_until(lambda: not is_group(process.pid), "the end of the group")


def is_group(leader: int) -> bool:
    """Return whether a process group has members, ended ones that nobody has waited for included."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("file", ["classify", "replay"])
def test_every_argument_is_described(file: str) -> None:
    from launch.launch_context import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(HERE.parent / "launch" / f"{file}.launch.py"))
    description = source.get_launch_description(LaunchContext())
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {"model", "backend", "image", "params_file", "log_level", "workers"} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())


def accepted(kind: type) -> dict[str, inspect._ParameterKind]:
    """Return the arguments of a class, as far as they are in its own and its bases' signatures."""
    found: dict[str, inspect._ParameterKind] = {}
    for base in kind.__mro__[:-1]:
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
                found.setdefault(name, parameter.kind)
    return found


@pytest.mark.parametrize("module", launch_stub.MODULES)
def test_the_stub_is_like_the_real_one(module: str) -> None:
    real = import_module(module)
    for name, stub in launch_stub.MODULES[module].items():
        theirs = getattr(real, name)
        if not isinstance(stub, type) or stub is launch_stub.ProcessExited:
            continue
        arguments = accepted(theirs)
        for argument, kind in accepted(stub).items():
            assert argument in arguments, f"{name} has no argument {argument}"
            keyword = inspect.Parameter.KEYWORD_ONLY
            assert kind == keyword or arguments[argument] != keyword, f"{name}: {argument}"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a prefix in which the launch files find the package and its programs."""
    # The stand-in for `ros2` has the commands of both.
    return install(tmp_path_factory.mktemp("workspace") / "install", "ros2bag", "ros2topic")


@pytest.fixture
def environment(prefix: Path) -> dict[str, str]:
    """Return the environment of a sourced workspace."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    # This folder has a `ros2` for where there is none.
    programs = os.pathsep.join([os.environ["PATH"], str(HERE)])
    prefixes = os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")])
    sourced = {"PYTHONPATH": path, "PATH": programs, "AMENT_PREFIX_PATH": prefixes}
    return {**os.environ, **sourced, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run a module in a sourced workspace."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        with started(environment, *command) as process:
            out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


@pytest.mark.parametrize("test", ["launch_classify.py", "launch_replay.py"])
def test_launch_testing(run: Run, test: str) -> None:
    ended = run("launch_testing.launch_test", str(HERE / test))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_missing_viewer_leaves_nothing_running(run: Run, environment: dict[str, str]) -> None:
    prefixes = environment["AMENT_PREFIX_PATH"].split(os.pathsep)
    index = "share/ament_index/resource_index/packages"
    if any((Path(prefix) / index / "rviz2").exists() for prefix in prefixes):
        pytest.skip("rviz2 is installed")
    ended = run("launch_it", str(HERE.parent / "launch/classify_demo.launch.py"), "viewer:=rviz")
    assert ended.returncode == 1
    assert "missing: rviz2" in ended.stdout + ended.stderr
    assert "process started" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_a_bag_is_replayed_and_its_answers_recorded(
    run: Run, tmp_path: Path, namespace: str
) -> None:
    bag, expected = sign_bag(tmp_path / "bag", storage=PLAYABLE), tmp_path / "expected.jsonl"
    assert main(["replay", str(bag), "--model", "demo", "--out", str(expected)]) == 0
    out = tmp_path / "out"
    arguments = f"bag:={bag} out:={out} model:=demo image:=/camera/image_raw"
    arguments += f" namespace:={namespace}" if namespace else ""
    ended = run("launch_it", str(HERE.parent / "launch" / "replay.launch.py"), *arguments.split())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    difference = compare(read_results(expected), read_results(out))
    assert (difference.agreement, difference.missing, difference.extra) == (1.0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("bag:=/absent", "ended before the replay did"),
        ("model:=999", "ended with exit code 1"),
        ("model_path:=/absent.onnx", "ended with exit code 1"),
        ("out:=.", "ended before the replay did"),
        ("image:=/absent", "is /absent in the bag?"),
    ],
)
def test_a_replay_that_fails_says_so(run: Run, wrong: str, reason: str, tmp_path: Path) -> None:
    right = {
        "bag": sign_bag(tmp_path / "bag", storage=PLAYABLE),
        "out": tmp_path / "out",
        "model": "demo",
        "image": "/camera/image_raw",
    }
    arguments = [f"{name}:={value}" for name, value in right.items()]
    ended = run("launch_it", str(HERE.parent / "launch" / "replay.launch.py"), *arguments, wrong)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert reason in ended.stdout + ended.stderr


def test_an_image_without_an_answer_fails_the_replay(run: Run, tmp_path: Path) -> None:
    images = [image(ROS2, index, picture) for index, (_, picture) in enumerate(film(12))]
    images[5].data = images[5].data[:100]
    bag = write_ros2(tmp_path / "bag", {"/camera/image_raw": images}, storage=PLAYABLE)
    arguments = f"bag:={bag} out:={tmp_path / 'out'} model:=demo image:=/camera/image_raw"
    ended = run("launch_it", str(HERE.parent / "launch" / "replay.launch.py"), *arguments.split())
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "11 of 12 images were answered" in ended.stdout + ended.stderr


def test_a_replay_beside_a_process_that_ends(run: Run, tmp_path: Path) -> None:
    bag, out = sign_bag(tmp_path / "bag", storage=PLAYABLE), tmp_path / "out"
    robot = tmp_path / "robot.launch.xml"
    robot.write_text(
        f"""<launch><executable cmd="true"/>
        <include file="{HERE.parent}/launch/replay.launch.py">
        <arg name="bag" value="{bag}"/><arg name="out" value="{out}"/>
        <arg name="model" value="demo"/><arg name="image" value="/camera/image_raw"/>
        </include></launch>"""
    )
    ended = run("launch_it", str(robot))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert read_results(out)


@pytest.mark.parametrize("front_end", ["py", "xml", "yaml"])
def test_a_required_model_that_cannot_be_opened_ends_the_launch(run: Run, front_end: str) -> None:
    file = str(HERE.parent / "launch" / f"classify.launch.{front_end}")
    ended = run("launch_it", file, "model:=demo", "model_path:=/absent.onnx", "required:=true")
    assert ended.returncode == 1
    assert "'/absent.onnx' does not exist" in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("rdk_camera", ("camera:=none", "websocket:=false", "image:=/film")),
        ("classify_demo", ("viewer:=none",)),
    ],
)
def test_parts_can_be_left_out(run: Run, file: str, arguments: tuple[str, ...]) -> None:
    launch_file = str(HERE.parent / "launch" / f"{file}.launch.py")
    ended = run("launch_it", "--seconds", "12", launch_file, "model:=demo", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    output = ended.stdout + ended.stderr
    assert "serving '/film'" in output if file == "rdk_camera" else "serving '/image'" in output


def test_a_missing_part_of_the_rdk_is_named(run: Run) -> None:
    ended = run("launch_it", str(HERE.parent / "launch" / "rdk_camera.launch.py"))
    assert ended.returncode == 1
    assert "missing: mipi_cam, " in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "file",
    ["classify.launch.py", "classify.launch.xml", "classify_demo.launch.py", "replay.launch.py"],
)
def test_an_unknown_argument_is_refused(run: Run, file: str) -> None:
    required = ["bag:=absent", "out:=answers"] if file.startswith("replay") else []
    ended = run("launch_it", str(HERE.parent / "launch" / file), *required, "topk:=3")
    assert ended.returncode == 1
    assert "unknown argument topk" in ended.stdout + ended.stderr


@contextmanager
def launched(environment: dict[str, str], file: str, *arguments: str) -> Iterator[RunningNode]:
    """Run a launch file; interrupted at the end, it must end with 0."""
    command = ["launch_it", str(HERE.parent / "launch" / file), *arguments]
    with started(environment, *command, stderr=subprocess.STDOUT) as process:
        launch = RunningNode(process)
        reader = threading.Thread(target=launch.read, daemon=True)
        reader.start()
        try:
            yield launch
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(WAIT)
            reader.join()
    assert code == 0, launch.output()


@pytest.mark.parametrize("front_end", ["py", "xml", "yaml"])
def test_arguments_reach_the_node(
    environment: dict[str, str], front_end: str, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"sign {number}" for number in range(17)))
    given = {
        "model": "200",  # overruled by the path, and a text all the same
        "model_path": str(HERE.parent / "models" / "demo.onnx"),
        "labels_path": str(labels),
        "cameras": "[front, rear]",
        "top_k": 3,
        "max_rate": 10,
        "image_transport": "raw",
        "qos_reliability": "reliable",
        "qos_depth": 7,
    }
    others = {"name": "eye", "namespace": "robot1", "autostart": "false", "use_sim_time": "true"}
    arguments = [f"{name}:={value}" for name, value in {**given, **others}.items()]
    robot = Robot("robot1/eye")
    try:
        with launched(environment, f"classify.launch.{front_end}", *arguments) as launch:
            assert robot.state() == "unconfigured"
            assert robot.get_parameter("use_sim_time") is True
            for name, value in given.items():
                expected = ["front", "rear"] if name == "cameras" else value
                assert robot.get_parameter(name) == expected
            assert robot.change_state(1)  # configure
            assert robot.change_state(3)  # activate
            wait_until(
                lambda: "serving '/robot1/rear/image'" in launch.output(), "the camera's line"
            )
            assert robot.get_parameter("class_labels")[0] == "sign 0"
    finally:
        robot.close()


def test_a_node_that_dies_is_started_again(environment: dict[str, str]) -> None:
    with launched(environment, "classify.launch.py", "model:=demo", "respawn:=true") as launch:
        wait_until(lambda: "serving" in launch.output(), "the node")
        (pid,) = re.findall(r"process started with pid \[(\d+)\]", launch.output())
        os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: launch.output().count("serving") == 2, "the node's return")


def test_a_replay_passes_arguments_on(run: Run, tmp_path: Path) -> None:
    bag, out = sign_bag(tmp_path / "bag", storage=PLAYABLE), tmp_path / "out"
    arguments = f"bag:={bag} out:={out} model:=demo image:=/camera/image_raw top_k:=2"
    ended = run("launch_it", str(HERE.parent / "launch" / "replay.launch.py"), *arguments.split())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {len(answer.results) for answer in read_results(out)} == {2}
