# SPDX-License-Identifier: Apache-2.0
"""`repghost watch`: what the page's program gets, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.waiting import WAIT

from repghost_ros import open_model
from repghost_ros.cli import main
from repghost_ros.engine.request import Request
from repghost_ros.runs.watching import Watched, serve_frames
from repghost_ros.sources.signs import render
from repghost_ros.teach.collected import read_origins
from repghost_ros.vision.frame import from_array

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    folder = tmp_path / "signs"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number:03}.png").write_bytes(_stop())
    return folder


def _stop() -> bytes:
    picture = render("stop", np.random.default_rng(3), 320, 240)
    return cv2.imencode(".png", picture)[1].tobytes()


@contextmanager
def watch(source: str, *more: str) -> Iterator[str]:
    """Yield the page's address; an interrupt must end the command well."""
    command = [sys.executable, "-m", "repghost_ros.cli", "watch", source, "--model", "demo"]
    process = subprocess.Popen(
        [*command, "--port", "0", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address = re.match(r"(http://\S+)", process.stdout.readline())
        assert address is not None
        yield address[1]
    finally:
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 0, errors
    assert re.fullmatch(r"(1 frame|\d+ frames)\n", told)


def state_of(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}state") as answer:
        state: dict[str, Any] = json.load(answer)
    return state


def post(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()


def wait_for(address: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    for _ in range(300):
        state = state_of(address)
        if condition(state):
            return state
        time.sleep(0.1)
    raise AssertionError(f"in vain: {state}")


def wait_for_frames(address: str) -> dict[str, Any]:
    return wait_for(address, lambda state: state["number"] > 1)


def test_pictures_are_shown(signs: Path) -> None:
    with watch(str(signs)) as address:
        state = wait_for_frames(address)
        assert state["results"][0]["class_id"] == "stop"
        assert state["latency_ms"] > 0
        with urllib.request.urlopen(f"{address}frame?1") as answer:
            picture = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (240, 320, 3)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}etc/passwd")


def test_the_page_keeps_the_last_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_stop())
    with watch(str(tmp_path)) as address:
        state = wait_for(address, lambda state: state["ended"])
        assert (state["number"], state["results"][0]["class_id"]) == (1, "stop")
        assert state["model"].startswith("demo.onnx on ONNX Runtime")
        assert state["model"].endswith("resize: stretch (default)")
        assert (state["earlier"], state["later"]) == (False, False)
        with urllib.request.urlopen(f"{address}frame?1") as answer:
            assert answer.read(2) == b"\xff\xd8"


def test_pausing_and_stepping(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_stop())
    with watch(str(tmp_path), "--loop", "--rate", "50") as address:
        wait_for(address, lambda state: state["number"] > 3)  # begins again
        post(f"{address}pause")
        wait_for(address, lambda state: state["paused"])
        time.sleep(0.3)  # a frame that was begun ends
        number = state_of(address)["number"]
        time.sleep(0.3)
        assert state_of(address)["number"] == number
        post(f"{address}step")
        wait_for(address, lambda state: state["number"] == number + 1)
        for back in (1, 2):
            post(f"{address}back")
            state = state_of(address)
            assert (state["number"], state["earlier"]) == (number + 1 - back, True)
        for _ in range(3):  # the last of them is a new one
            post(f"{address}step")
        wait_for(address, lambda state: state["number"] == number + 2)
        post(f"{address}pause")
        wait_for(address, lambda state: state["number"] > number + 3)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(f"{address}quit")


def test_stepping_back_keeps_little_memory() -> None:
    watched = Watched("a", "b")
    with open_model("demo") as model, closing(model.open_slot()) as slot:
        for shade in range(5):
            pixels = np.full((5000, 5000, 3), shade, np.uint8)
            watched.show(*model.run([Request(pixels, from_array)], slot))
        watched.show(*model.run([Request(np.zeros(3, np.uint8), from_array)], slot))
    assert (watched.state()["number"], watched.state()["results"]) == (6, [])
    assert "expected uint8" in watched.state()["error"]
    watched.back()
    assert (watched.state()["number"], watched.state()["error"]) == (5, "")
    watched.back()  # 4 is not kept any more
    assert (watched.state()["number"], watched.state()["earlier"]) == (5, False)
    watched.pause()  # goes on
    assert watched.state()["number"] == 6
    watched.end()
    watched.back()
    watched.step()
    assert (watched.state()["number"], watched.state()["paused"]) == (6, False)


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        said: dict[str, Any] = json.load(answer)
    return said


def test_a_watched_picture_is_labeled(tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "own"
    source.write_bytes(_stop())
    with watch(str(source), "--label", str(out)) as address:
        wait_for(address, lambda state: state["ended"])
        assert ask(f"{address}label", {"number": 1, "class": "stop sign"}) == {
            "said": "frame 1 is labeled stop sign"
        }
        state = state_of(address)
        assert (state["folder"], state["classes"]) == (
            str(out),
            [{"name": "stop sign", "count": 1}],
        )
        (kept,) = (out / "stop sign").iterdir()
        shown = cv2.imread(str(kept))
        truth = cv2.imread(str(source))
        assert shown is not None
        assert truth is not None
        assert np.abs(shown.astype(int) - truth).mean() < 3
        assert read_origins(out) == {kept.name: str(source)}
        assert "is no longer held" in ask(f"{address}label", {"number": 9, "class": "x"})["error"]
        assert "cannot be called" in ask(f"{address}label", {"number": 1, "class": "../x"})["error"]
        with pytest.raises(urllib.error.HTTPError, match="415"):
            post(f"{address}label")  # as another site's page could
        assert "is removed" in ask(f"{address}undo", {})["said"]
        assert not kept.exists()
        assert ask(f"{address}undo", {}) == {"error": "nothing to undo"}


def test_nothing_is_labeled_without_a_folder(signs: Path) -> None:
    with watch(str(signs)) as address:
        wait_for_frames(address)
        assert "classes" not in state_of(address)
        assert "is no longer held" in ask(f"{address}label", {"number": 1, "class": "x"})["error"]


def test_a_closed_tab_prints_no_traceback(tmp_path: Path, capfd: Any) -> None:
    watched = Watched("a", "b")
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    with open_model("demo") as model:
        slot = model.open_slot()
        (outcome,) = model.run([Request(pixels, from_array)], slot)
        slot.close()
    watched.show(outcome)
    server = serve_frames(watched, "127.0.0.1", 0)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.server_port)) as tab:
            tab.sendall(b"GET /frame HTTP/1.0\r\n\r\n")
            tab.recv(100)  # closes with bytes unread: the connection is reset
            tab.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.5)
    server.shutdown()
    server.server_close()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_them(signs: Path) -> None:
    with watch(str(signs)) as address:
        wait_for_frames(address)
        assert CHROMIUM is not None
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
        page = subprocess.run(
            [CHROMIUM, *quiet, "--dump-dom", address], capture_output=True, text=True, timeout=100
        ).stdout
    assert re.search(r"\d+\.\d %  stop<div class=\"bar\"", page), page
    assert re.search(r'id="latency">\d+\.\d ms', page)
    assert re.search(r'<img id="frame"[^>]*src="frame\?\d+"', page)


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_a_topic_is_shown() -> None:
    camera = subprocess.Popen(
        [sys.executable, "-m", "repghost_ros.demo.camera", "--ros-args"]
        + ["-p", "width:=320", "-p", "height:=240"]
    )
    try:
        with watch("/image") as address:
            state = wait_for_frames(address)
            assert state["source"] == "/image"
            assert len(state["results"]) == 5
    finally:
        camera.send_signal(signal.SIGINT)
        camera.wait()


def test_what_cannot_be_served_or_shown(tmp_path: Path, capsys: Any) -> None:
    assert main(["watch", str(tmp_path.relative_to("/")), "--model", "demo"]) == 1
    (tmp_path / "a.png").write_bytes(_stop())
    assert main(["watch", str(tmp_path), "--model", "demo", "--host", "192.0.2.1"]) == 1
    assert "--host 192.0.2.1 --port 8080 cannot be served" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["watch", str(tmp_path), "--model", "demo", "--port", "99999"])
    assert "'99999' is not a port" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
@pytest.mark.parametrize(
    ("command", "refused"),
    [
        (["watch", "/absent/the-road.mp4", "--port", "0"], "/absent/the-road.mp4"),
        (["collect", "/absent/the-road.mp4", "--out", "new"], "/absent/the-road.mp4"),
        (["collect", "/image", "--answers", "the-node", "--out", "new"], "the-node"),
        (["collect", "/image", "--detections", "a.detector", "--out", "new"], "a.detector"),
    ],
    ids=["watch", "collect", "answers", "detections"],
)
def test_what_is_neither_a_file_nor_a_topic_is_refused(
    command: list[str], refused: str, tmp_path: Path
) -> None:
    """In a process of its own, because ROS is initialized there."""
    done = subprocess.run(
        [sys.executable, "-m", "repghost_ros.cli", *command, "--model", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()  # Cyclone DDS begins with a line of its own
    assert "Traceback" not in done.stderr
    assert f"'{refused}' cannot be a topic: topic name " in line  # is invalid, on Humble
