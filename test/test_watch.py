# SPDX-License-Identifier: Apache-2.0
"""`repghost watch`: what the page's program gets, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros.cli import main
from repghost_ros.sources.signs import render

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
    """The page's address; at the end an interrupt must end it well."""
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
        told, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "frames" in told


def wait_for_frames(address: str) -> dict[str, Any]:
    for _ in range(300):
        with urllib.request.urlopen(f"{address}state") as answer:
            state: dict[str, Any] = json.load(answer)
        if state["number"] > 1:
            return state
        time.sleep(0.1)
    raise AssertionError(f"no frames: {state}")


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
def test_what_is_neither_a_file_nor_a_topic_is_refused() -> None:
    """In a process of its own, because ROS is initialized there."""
    watched = subprocess.run(
        [sys.executable, "-m", "repghost_ros.cli", "watch", "/absent/the-road.mp4"]
        + ["--model", "demo", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert watched.returncode == 1
    (line,) = watched.stderr.splitlines()
    assert "'/absent/the-road.mp4' cannot be a topic: topic name must not contain" in line
