# SPDX-License-Identifier: Apache-2.0
"""The launch files, executed up to the processes they start, where `launch` is not installed either.

`test_launch.py` starts them for real where it is.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers.bags import sign_bag
from helpers.launch_env import install
from helpers.launch_stub import (
    MODULES,
    DeclareLaunchArgument,
    ExecuteProcess,
    LaunchContext,
    Node,
    RegisterEventHandler,
    Shutdown,
    described,
    started,
)

from repghost_ros.errors import DependencyError, ParameterError
from repghost_ros.ros.launching import ARGUMENTS
from repghost_ros.ros.parameters import DECLARATIONS, Parameters

FOLDER = Path(__file__).parent.parent / "launch"
REPLAY = ("bag:=drive", "out:=answers", "image:=/cam")
RUNNING = LaunchContext()


NEEDED = {
    "classify_demo viewer:=foxglove": ["foxglove_bridge"],
    "classify_demo viewer:=rviz": ["rviz2"],
    "classify_demo viewer:=rqt": ["rqt_image_view"],
    "rdk_camera": ["mipi_cam", "hbm_img_msgs", "hobot_codec", "websocket", "ai_msgs"],
    "rdk_camera camera:=usb": ["hobot_usb_cam", "websocket", "ai_msgs"],
    "replay bag:=drive out:=answers": ["ros2bag", "ros2topic"],
}
"""Packages without which a launch file starts nothing."""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are installed, unless a test says otherwise."""
    packages = {package for needed in NEEDED.values() for package in needed}
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(install(tmp_path / "install", *sorted(packages))))


def launch_file(name: str) -> Path:
    return FOLDER / f"{name}.launch.py"


def nodes(entities: list[Any]) -> dict[str, Node]:
    return {each.executable: each for each in entities if isinstance(each, Node)}


def handlers(entities: list[Any], target: Any) -> list[Any]:
    """Return the handlers of `target`'s end."""
    events = [each.event_handler for each in entities if isinstance(each, RegisterEventHandler)]
    return [e.on_exit for e in events if getattr(e, "target_action", None) is target]


def ended(code: int) -> Any:
    return SimpleNamespace(process_name="it-1", returncode=code)


def test_every_launch_file_is_executed() -> None:
    required = {"replay": REPLAY}
    for file in FOLDER.glob("*.launch.py"):
        name = file.name.partition(".")[0]
        assert "classifier_node" in nodes(started(file, *required.get(name, ())))


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.launch.py")), ids=lambda f: f.name)
def test_every_argument_is_described(file: Path) -> None:
    arguments = [
        e for e in described(file).initial_entities if isinstance(e, DeclareLaunchArgument)
    ]
    assert len({each.name for each in arguments}) == len(arguments) > 0
    assert all(len(each.description or "") > 10 for each in arguments)


def test_arguments_are_given_to_the_node_in_their_types() -> None:
    given = {
        "model": "200",
        "model_path": "/m.onnx",
        "labels_path": "/l.txt",
        "cameras": "[front, rear]",
        "onnx_providers": "cuda, cpu",
        "top_k": "3",
        "max_rate": "10",
        "autostart": "false",
        "image_transport": "raw",
        "qos_reliability": "reliable",
    }
    others = ("name:=eye", "namespace:=robot1", "image:=/cam", "use_sim_time:=true")
    arguments = (*(f"{name}:={value}" for name, value in given.items()), *others)
    node = nodes(started(launch_file("classify"), *arguments))["classifier_node"]
    assert (node.name, node.namespace, node.respawn) == ("eye", "robot1", False)
    assert node.remappings == [("image", "/cam")]
    assert [Path(file).name for file in node.files] == ["classify.yaml"]
    assert node.parameters == {
        **given,
        "cameras": ["front", "rear"],
        "onnx_providers": ["cuda", "cpu"],
        "top_k": 3,
        "max_rate": 10.0,
        "autostart": False,
        "use_sim_time": True,
    }
    Parameters(**{name: value for name, value in node.parameters.items() if name in {"top_k"}})


def test_without_arguments_the_file_of_parameters_counts() -> None:
    node = nodes(started(launch_file("classify"), "params_file:=/mine.yaml"))["classifier_node"]
    assert (node.files, node.parameters) == (["/mine.yaml"], {})


def test_the_end_of_a_required_node_is_the_end_of_the_launch() -> None:
    entities = started(launch_file("classify"), "required:=true")
    (on_exit,) = handlers(entities, nodes(entities)["classifier_node"])
    with pytest.raises(RuntimeError, match="exit code 1"):
        on_exit(ended(1), RUNNING)
    entities = started(launch_file("classify"))
    assert not handlers(entities, nodes(entities)["classifier_node"])


@pytest.mark.parametrize("command_line", ["py", "xml", "yaml"])
def test_unknown_arguments_are_refused(command_line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"/share/launch/classify.launch.{command_line}"
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", file, "topk:=3"])
    with pytest.raises(ParameterError, match="topk"):
        started(launch_file("classify"), "topk:=3")
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "robot", "bringup.launch.py"])
    started(launch_file("classify"), "arguments_of_the_robot:=3")


@pytest.mark.parametrize("name", ["classify_demo", "regions", "replay"])
def test_unknown_arguments_are_refused_by_what_includes_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "repghost_ros", f"{name}.launch.py"])
    required = {"classify_demo": ["viewer:=none"], "regions": [], "replay": REPLAY}[name]
    node = nodes(started(launch_file(name), *required, "top_k:=2"))["classifier_node"]
    assert node.parameters["top_k"] == 2
    with pytest.raises(ParameterError, match="topk"):
        started(launch_file(name), *required, "topk:=2")


@pytest.mark.parametrize(
    ("launch", "missing"), [(launch, each) for launch, needed in NEEDED.items() for each in needed]
)
def test_nothing_is_started_if_a_package_is_missing(
    launch: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *arguments = launch.split()
    others = [package for package in NEEDED[launch] if package != missing]
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(install(tmp_path / "less", *others)))
    with pytest.raises(DependencyError, match=f"^missing: {missing}: "):
        started(launch_file(name), *arguments)
    index = tmp_path / "less/share/ament_index/resource_index/packages"
    (index / missing).touch()  # and nothing else is needed
    assert "classifier_node" in nodes(started(launch_file(name), *arguments))


@pytest.mark.parametrize("viewer", ["foxglove", "rviz", "rqt", "none"])
def test_the_demo_starts_one_viewer(viewer: str) -> None:
    found = nodes(started(launch_file("classify_demo"), f"viewer:={viewer}"))
    assert found.keys() >= {"camera", "classifier_node"}
    assert len(found) == (2 if viewer == "none" else 3)
    for node in found.values():
        for argument in node.command:
            assert not argument.endswith(".rviz") or Path(argument).is_file()


@pytest.mark.parametrize(
    ("camera", "image", "included"),
    [
        ("mipi", "/hbmem_img", ["mipi_cam", "hobot_codec_encode", "websocket"]),
        ("usb", "/image", ["hobot_usb_cam", "websocket"]),
        ("none", "image", ["websocket"]),
    ],
)
def test_the_parts_of_the_rdk(camera: str, image: str, included: list[str]) -> None:
    entities = started(launch_file("rdk_camera"), f"camera:={camera}")
    node = nodes(entities)["classifier_node"]
    assert node.remappings == [("image", image)]
    assert node.parameters["perception"] is True
    files = [Path(each.file).name.partition(".")[0] for each in entities if hasattr(each, "file")]
    assert files == included
    alone = started(launch_file("rdk_camera"), "camera:=none", "websocket:=false")
    assert not [each for each in alone if hasattr(each, "file")]


def test_regions_come_from_a_detectors_topic() -> None:
    started_node = nodes(started(launch_file("regions"), "detections:=/found", "image:=/camera"))
    node = started_node["classifier_node"]
    assert node.parameters["detections"] == "/found"
    assert node.remappings == [("image", "/camera")]


def replay(*arguments: str) -> tuple[list[Any], ExecuteProcess, ExecuteProcess, Any]:
    """Return a replay's actions, its recorder, the process that waits, and the answers' callback."""
    entities = started(launch_file("replay"), *REPLAY, *arguments)
    recorder, ready = (each for each in entities if isinstance(each, ExecuteProcess))
    (answers,) = (each for each in entities if hasattr(each, "topic"))
    return entities, recorder, ready, answers


@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_a_replay_listens_where_the_node_answers(namespace: str) -> None:
    entities, recorder, ready, answers = replay(f"namespace:={namespace}")
    node = nodes(entities)["classifier_node"]
    name = "/".join(["", *filter(None, [node.namespace]), node.name or ""])
    assert answers.topic == f"{name}/classification"
    assert recorder.command[-1] == f"^{name}/classification$"
    assert f"{name}/vision_info" in ready.command


def test_a_replay_fails_with_what_it_needs() -> None:
    entities, recorder, ready, _ = replay()
    for process in (recorder, ready, nodes(entities)["classifier_node"]):
        (on_exit,) = handlers(entities, process)
        with pytest.raises(RuntimeError, match="exit code 1"):
            on_exit(ended(1), RUNNING)


def played(*arguments: str) -> tuple[Any, Any, ExecuteProcess]:
    """Return the answers' callback, that of the player's end, and the player."""
    entities, _, ready, answers = replay(*arguments)
    (on_ready,) = handlers(entities, ready)
    context = LaunchContext(argv=[*REPLAY, *arguments])
    context.launch_configurations["rate"] = "1.0"
    playing = on_ready(ended(0), context)
    (player,) = (each for each in playing if isinstance(each, ExecuteProcess))
    player.execute(context)
    Path(player.command[-1]).unlink()
    (on_played,) = handlers(playing, player)
    return answers.callback, lambda: on_played(ended(0), context), player


def test_a_replay_waits_until_the_node_has_every_image() -> None:
    """What a publisher has not delivered when it ends is lost on Fast DDS."""
    *_, player = played()
    assert player.command[:4] == ["ros2", "bag", "play", "drive"]
    option = dict(zip(player.command, player.command[1:]))
    assert int(option["--wait-for-all-acked"]) > 0
    assert float(option["--delay"]) > 3, "the period in which Fast DDS repeats an announcement"


@pytest.mark.parametrize(
    ("answers", "error"),
    [(12, ""), (11, "11 of 12 images were answered"), (0, "is /camera/image_raw in the bag")],
)
def test_a_replay_ends_when_the_answers_do_and_counts_them(
    answers: int, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = sign_bag(tmp_path / "bag", frames=12)
    on_answer, on_played, _ = played(f"bag:={bag}", "image:=/camera/image_raw")
    for _ in range(answers):
        on_answer(None)
    (timer,) = on_played()
    (timer,) = timer.actions[0].execute(RUNNING)  # the last answers may be on their way
    monkeypatch.setattr("time.monotonic", lambda: float("inf"))
    if error:
        with pytest.raises(RuntimeError, match=error):
            timer.actions[0].execute(RUNNING)
    else:
        (end,) = timer.actions[0].execute(RUNNING)
        assert isinstance(end, Shutdown)


def test_the_other_front_ends_include_the_same_file() -> None:
    root = ElementTree.parse(FOLDER / "classify.launch.xml").getroot()
    arguments = {each.get("name"): each.get("default") for each in root.iter("arg")}
    (entries,) = yaml.safe_load((FOLDER / "classify.launch.yaml").read_text()).values()
    assert {e["arg"]["name"]: e["arg"]["default"] for e in entries if "arg" in e} == arguments
    assert arguments.keys() <= ARGUMENTS.keys() | DECLARATIONS.keys()
    files = {each.get("file") for each in root.iter("include")}
    assert files == {each["include"]["file"] for each in entries if "include" in each}
    (file,) = files
    prefix, _, name = (file or "").partition("/launch/")
    assert prefix == "$(find-pkg-share repghost_ros)"
    assert (FOLDER / name).is_file()


def test_a_name_that_the_stub_does_not_have_fails(tmp_path: Path) -> None:
    for line in ("from launch.actions import GroupAction", "import launch.frontend"):
        file = tmp_path / "new.launch.py"
        file.write_text(line)
        with pytest.raises(ImportError):
            described(file)
    assert MODULES["launch.actions"]
