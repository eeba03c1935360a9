# SPDX-License-Identifier: Apache-2.0
"""docs/own-classes.md, walked: its commands as written, in its order, on drawn signs.

Only what a test cannot have is replaced: the camera by a video, the downloaded base by the demo model,
`ros2 launch` by the launch file run up to its node, which is then started for real.
Not walked: `ros2 launch` of the compiled model, which needs a board.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.launch_stub import started

from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.cli import main
from repghost_ros.errors import DependencyError
from repghost_ros.paths import share
from repghost_ros.sources.signs import render
from repghost_ros.teach.collected import RECORD

bags = pytest.importorskip("helpers.bags")
pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")
PAGE = Path(__file__).parent.parent / "docs" / "own-classes.md"
DEMO = str(share() / "models" / "demo.onnx")
CLASSES = ("stop", "yield", "nothing")
FRAMES = 21  # of each recording, a class after the other


def frame(recording: int, number: int) -> np.ndarray:
    random = np.random.default_rng([recording, number])
    label = CLASSES[number % len(CLASSES)]
    if label != "nothing":
        return render(label, random, 160, 120)
    return cv2.resize(random.integers(0, 255, (6, 8, 3), np.uint8), (160, 120))


def commands(program: str = "repghost", *words: str) -> list[list[str]]:
    """Return the arguments of the program's commands, in order; only those with all the words."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    split = [shlex.split(line) for line in lines if line.startswith(f"{program} ")]
    return [line[1:] for line in split if set(words) <= set(line)]


def with_demo(arguments: list[str]) -> list[str]:
    return [DEMO if each == "150" else each for each in arguments]


@contextmanager
def served(arguments: list[str]) -> Iterator[str]:
    """Run a command that serves a page; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "repghost_ros.cli", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = re.match(r"(http://\S+)", process.stdout.readline())
    assert address is not None
    try:
        yield address[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def label_all(address: str) -> None:
    state = ask(f"{address}state")
    while state["picture"] is not None:
        number = int(Path(state["picture"]).stem[-6:])
        label = CLASSES[number % len(CLASSES)]
        state = ask(f"{address}label", {"picture": state["picture"], "class": label})
    assert {each["name"] for each in state["classes"]} == set(CLASSES)


def label_the_last(address: str) -> None:
    while not (state := ask(f"{address}state"))["ended"]:
        pass
    last = (FRAMES - 1) % len(CLASSES)
    said = ask(f"{address}label", {"number": state["number"], "class": CLASSES[last]})
    assert "said" in said


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Walk the page up to the robot and the board; the working directory stays where it was walked."""
    folder = tmp_path_factory.mktemp("walk")
    kind = bags.ROS2.types["sensor_msgs/msg/CompressedImage"]
    jpegs = [cv2.imencode(".jpg", frame(0, number))[1].ravel() for number in range(FRAMES)]
    messages = [kind(bags.header(bags.ROS2, n), "jpeg", each) for n, each in enumerate(jpegs)]
    bags.write_ros2(folder / "drive", {"/image/compressed": messages})
    for recording, name in enumerate(("camera.avi", "other_place.avi"), 1):
        video = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*"MJPG"), 30, (160, 120))
        for number in range(FRAMES):
            video.write(frame(recording, number))
        video.release()

    names = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REPGHOST_HOME", str(folder / "store"))
        assert main(["collect", "other_place.avi", "--out", "pictures"]) == 0
        for name, *arguments in commands():
            if name in ("quantize", "info") or {"--answers", "--finetune"} & set(arguments):
                continue  # tests of their own, below
            words = ["camera.avi" if each == "0" else each for each in with_demo(arguments)]
            if name == "label":
                with served([name, *words]) as address:
                    label_all(address)
            elif name == "watch":
                base = () if "--model" in words else ("--model", DEMO)
                with served([name, *words, *base]) as address:
                    if "--label" in words:
                        label_the_last(address)
            else:
                assert main([name, *words]) == 0
            names.add(name)
        assert names == {"collect", "label", "watch", "teach", "classify", "replay"}
        yield folder


@pytest.mark.timeout(300)
def test_the_page_works_as_written(walked: Path) -> None:
    assert "held-out pictures" in (walked / "own.html").read_text(encoding="utf-8")
    lines = (walked / "answers.jsonl").read_text().splitlines()
    best = [json.loads(line)["results"][0]["class_id"] for line in lines]
    truth = [CLASSES[n % len(CLASSES)].replace("nothing", "unknown") for n in range(FRAMES)]
    assert sum(map(str.__eq__, best, truth)) >= 0.8 * FRAMES  # trained with most of them


@pytest.mark.timeout(300)
@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_the_launched_node_decides_what_is_collected(walked: Path) -> None:
    """Over DDS, with the topics that the page names."""
    from helpers.graph import Robot, best, image, running_node, wait_until

    (launch,) = (each for each in commands("ros2", "launch") if "model:=tools" not in each)
    ((_, *collect),) = commands("repghost", "collect", "--answers")
    arguments = [each.replace("$PWD", str(walked)) for each in launch[3:]]
    file = PAGE.parent.parent / "launch" / launch[2]
    (node,) = (each for each in started(file, *arguments) if hasattr(each, "remappings"))
    remapped = [word for a, b in node.remappings for word in ("-r", f"{a}:={b}")]
    kept = walked / "pictures" / "unlabeled"
    assert not list(kept.iterdir())  # all are labeled
    robot = Robot()
    try:
        with running_node(*remapped, **node.parameters):
            publisher = robot.publisher(collect[0])
            collecting = subprocess.Popen(
                [sys.executable, "-m", "repghost_ros.cli", "collect", *collect]
            )
            found: list[str] = []

            def collected() -> bool:
                number = len(found)
                share = (number % 10) / 10  # a stop sign turns into a yield sign: some are unsure
                shown = cv2.addWeighted(
                    *(frame(3, 3 * number), 1 - share, frame(3, 3 * number + 1), share, 0)
                )
                answer = robot.answer(publisher, image(shown, number + 1))
                found.append(best(answer))
                assert collecting.poll() is None
                return len(list(kept.iterdir())) >= 2

            wait_until(collected, "two pictures")
            collecting.send_signal(signal.SIGINT)
            assert collecting.wait(30) == 0
    finally:
        robot.close()
    assert set(found) <= {"stop", "yield", "unknown"}


@pytest.mark.timeout(300)
def test_the_whole_network_is_taught_as_written(walked: Path) -> None:
    """Of a third of the pictures, for it takes long."""
    pytest.importorskip("torch")
    ((_, *arguments),) = commands("repghost", "teach", "--finetune")
    out, few = walked / "fine.onnx", walked / "few"
    for name in CLASSES:
        (few / name).mkdir(parents=True)
        for picture in sorted((walked / "pictures" / name).iterdir())[::3]:
            shutil.copy(picture, few / name)
    shutil.copy(walked / "pictures" / RECORD, few)
    replaced = {"own.onnx": out.name, "pictures": few.name}
    words = [replaced.get(each, each) for each in with_demo(arguments)]
    assert main(["teach", *words, "--epochs", "1"]) == 0
    assert out.is_file()
    assert "fine-tuned as a whole" in (walked / "own.html").read_text(encoding="utf-8")


@pytest.mark.toolchain
@pytest.mark.timeout(900)
def test_the_board_gets_it_by_its_name(walked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find_toolchain()
    except DependencyError as missing:
        pytest.skip(str(missing))
    ((_, *arguments),) = commands("repghost", "quantize")
    cheap = ["--methods", "max", "--skip", "int8", "--min-agreement", "0.5"]
    assert main(["quantize", *arguments, *cheap]) == 0
    capsys.readouterr()
    assert main(["info", "tools", "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)["results"]
    assert about["models"][0]["names"] == sorted(CLASSES)
