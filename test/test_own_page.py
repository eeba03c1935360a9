# SPDX-License-Identifier: Apache-2.0
"""docs/own-classes.md, walked: its commands as written, in its order, on drawn signs.

Only what a test cannot have is replaced: the camera by a video, the downloaded base by the demo model.
The topic, the node and the board have their own tests, in test_collect, test_teach and test_toolchain.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros.cli import main
from repghost_ros.paths import share
from repghost_ros.sources.signs import render

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


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("repghost ")]


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


@pytest.mark.timeout(300)
def test_the_page_works_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = bags.ROS2.types["sensor_msgs/msg/CompressedImage"]
    jpegs = [cv2.imencode(".jpg", frame(0, number))[1].ravel() for number in range(FRAMES)]
    messages = [kind(bags.header(bags.ROS2, n), "jpeg", each) for n, each in enumerate(jpegs)]
    bags.write_ros2(tmp_path / "drive", {"/image/compressed": messages})
    video = cv2.VideoWriter("camera.avi", cv2.VideoWriter.fourcc(*"MJPG"), 30, (160, 120))
    for number in range(FRAMES):
        video.write(frame(1, number))
    video.release()

    walked = []
    for _, name, *arguments in commands():
        if name == "quantize" or "--answers" in arguments or "--finetune" in arguments:
            continue
        words = ["camera.avi" if each == "0" else each for each in arguments]
        words = [DEMO if each == "150" else each for each in words]
        if name == "label":
            with served([name, *words]) as address:
                label_all(address)
        elif name == "watch":
            with served([name, *words, *(() if "--model" in words else ("--model", DEMO))]) as a:
                if "--label" in words:
                    label_the_last(a)
        else:
            assert main([name, *words]) == 0
        walked.append(name)
    assert {"collect", "label", "watch", "teach", "classify", "replay"} <= set(walked)
    assert "held-out pictures" in Path("own.html").read_text(encoding="utf-8")
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    best = [each["results"][0]["class_id"] for each in answers]
    truth = [CLASSES[n % len(CLASSES)].replace("nothing", "unknown") for n in range(FRAMES)]
    assert sum(map(str.__eq__, best, truth)) >= 0.8 * FRAMES  # trained with most of them
