# SPDX-License-Identifier: Apache-2.0
"""Collecting pictures from recordings, and labeling them in the browser."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros.cli import main
from repghost_ros.engine.results import Result
from repghost_ros.errors import SourceError
from repghost_ros.paths import share
from repghost_ros.sources.signs import render
from repghost_ros.teach.collected import append, read_origins, read_record
from repghost_ros.teach.collecting import Collector, Wanted
from repghost_ros.teach.labeling import Labeling, serve_labeling
from repghost_ros.vision.frame import from_array

DEMO = share() / "models" / "demo.onnx"


def scene(seed: int) -> np.ndarray:
    return render("stop", np.random.default_rng(seed), 160, 120)


def jpeg(seed: int) -> bytes:
    return cv2.imencode(".jpg", scene(seed))[1].tobytes()


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten JPEGs, of which each shows what its neighbor shows."""
    bags = pytest.importorskip("helpers.bags")
    kind = bags.ROS2.types["sensor_msgs/msg/CompressedImage"]
    messages = [
        kind(bags.header(bags.ROS2, n), "jpeg", np.frombuffer(jpeg(n // 2), np.uint8))
        for n in range(10)
    ]
    path: Path = bags.write_ros2(
        tmp_path_factory.mktemp("bags") / "kitchen", {"/camera/compressed": messages}
    )
    return path


def collect(*arguments: object, capsys: Any) -> dict[str, Any]:
    assert main(["collect", *map(str, arguments), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    found: dict[str, Any] = result
    return found


def test_changed_scenes_are_kept_as_they_came(bag: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "own"
    result = collect(bag, "--out", out, capsys=capsys)
    assert (result["frames"], result["kept"]) == (10, 5)
    kept = sorted((out / "unlabeled").iterdir())
    assert [path.name for path in kept] == [f"kitchen_{n:06}.jpg" for n in (0, 2, 4, 6, 8)]
    assert kept[1].read_bytes() == jpeg(1)
    assert set(read_origins(out).values()) == {str(bag)}
    entry = next(read_record(out))
    assert entry["why"] == "changed"
    assert entry["stamp_ns"] is not None


def test_the_next_run_goes_on(bag: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "own"
    assert collect(bag, "--out", out, "--most", 2, capsys=capsys)["full"]
    assert collect(bag, "--out", out, capsys=capsys)["kept"] == 3
    assert collect(bag, "--out", out, capsys=capsys)["kept"] == 0
    assert len(list((out / "unlabeled").iterdir())) == 5


def test_labeled_pictures_are_not_collected_again(bag: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "own"
    collect(bag, "--out", out, capsys=capsys)
    (out / "stop").mkdir()
    for path in list((out / "unlabeled").iterdir()):
        path.rename(out / "stop" / path.name)
    assert collect(bag, "--out", out, capsys=capsys)["kept"] == 0


def test_unsure_frames_are_kept(bag: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("onnxruntime")
    demo = ("--model", DEMO, "--change", 0)
    none = collect(bag, "--out", tmp_path / "a", *demo, "--below", 0, capsys=capsys)
    every = collect(bag, "--out", tmp_path / "b", *demo, "--below", 1, capsys=capsys)
    stop = collect(bag, "--out", tmp_path / "c", *demo, "--class", "stop", capsys=capsys)
    assert none["kept"] == 0
    assert every["kept"] == 10
    assert stop["kept"] >= 5
    entry = next(read_record(tmp_path / "c"))
    assert (entry["why"], entry["answer"][0]["class_id"]) == ("class", "stop")


def test_pictures_keep_their_bytes(tmp_path: Path, capsys: Any) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    cv2.imwrite(str(source / "a.png"), scene(1))
    (source / "b.jpg").write_bytes(jpeg(2))
    (source / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "own"
    result = collect(source, "--out", out, capsys=capsys)
    assert (result["kept"], result["refused"]) == (2, 1)
    contents = {path.read_bytes() for path in (out / "unlabeled").iterdir()}
    assert contents == {(source / "a.png").read_bytes(), jpeg(2)}


def test_one_file_is_a_source(tmp_path: Path, capsys: Any) -> None:
    """A picture, a video, and a bag that is one file."""
    bags = pytest.importorskip("helpers.bags")
    kind = bags.ROS2.types["sensor_msgs/msg/CompressedImage"]
    message = kind(bags.header(bags.ROS2, 1), "jpeg", np.frombuffer(jpeg(0), np.uint8))
    folder = bags.write_ros2(tmp_path / "drive", {"/camera/compressed": [message]})
    (file,) = (path for path in folder.iterdir() if path.suffix != ".yaml")
    picture, video = tmp_path / "a.jpg", tmp_path / "b.avi"
    picture.write_bytes(jpeg(1))
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    writer.write(scene(2))
    writer.release()
    for source in (file, picture, video):
        assert collect(source, "--out", tmp_path / "own", capsys=capsys)["kept"] == 1
    missing = tmp_path / "missing.avi"
    assert main(["collect", missing.relative_to("/").as_posix(), "--out", str(tmp_path)]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_raw_frames_become_png(tmp_path: Path) -> None:
    collector = Collector(tmp_path, "camera", Wanted())
    path = collector.offer(from_array(scene(1)), (), number=0)
    assert path is not None
    shown = cv2.imread(str(path))
    assert shown is not None
    assert path.suffix == ".png"
    assert np.abs(shown.astype(int) - scene(1)).mean() < 3


def test_the_folder_stays_within_its_bounds(tmp_path: Path) -> None:
    collector = Collector(tmp_path, "camera", Wanted(most_bytes=30_000, change=0))
    for number in range(100):
        collector.offer(from_array(scene(number)), (), number=number)
    assert collector.full
    sizes = [path.stat().st_size for path in (tmp_path / "unlabeled").iterdir()]
    assert sum(sizes[:-1]) < 30_000 + max(sizes)


def test_a_broken_record_is_gone_on_with(tmp_path: Path) -> None:
    append(tmp_path, {"file": "a.png", "source": "one"})
    with (tmp_path / "collected.jsonl").open("a") as file:
        file.write('{"file": "b.p')
    append(tmp_path, {"file": "c.png", "source": "two"})
    assert read_origins(tmp_path) == {"a.png": "one", "c.png": "two"}


def test_an_unknown_answer_is_unsure() -> None:
    random = np.random.default_rng(0)
    wanted = Wanted(below=0.6)
    assert wanted.why((Result("unknown", 0.7),), random) == "unsure"
    assert wanted.why((), random) == "unsure"  # with the node's unknown:=none
    assert wanted.why((Result("cup", 0.7),), random) == ""


def test_a_stream_is_collected_from_again(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames are others each time, though they are counted from 0."""
    out = tmp_path / "own"
    for runs in (1, 2):
        stream = io.BufferedReader(io.BytesIO(b"".join(map(jpeg, range(3)))))  # type: ignore[arg-type]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        result = collect("-", "--out", out, "--change", 0, capsys=capsys)
        assert (result["frames"], result["kept"]) == (3, 3)
        assert len(list((out / "unlabeled").iterdir())) == 3 * runs


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_beside_the_node_its_answers_decide(tmp_path: Path) -> None:
    """Over DDS: the node classifies, and what it wavers about is kept with its answer and stamp."""
    from helpers.graph import Robot, image, running_node, wait_until

    out = tmp_path / "own"
    robot = Robot()
    try:
        with running_node(model="demo") as _:
            publisher = robot.publisher()
            arguments = ["/image", "--answers", "/repghost/classification", "--out", str(out)]
            arguments += ["--class", "stop", "--change", "0", "--most", "2"]
            collecting = subprocess.Popen(
                [sys.executable, "-m", "repghost_ros.cli", "collect", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stamp = itertools.count(1)

            def ended() -> bool:
                for label in ("stop", "yield"):
                    shown = render(label, np.random.default_rng(3), 160, 120)
                    robot.answer(publisher, image(shown, next(stamp)))
                return collecting.poll() is not None

            wait_until(ended, "two pictures")  # as many as there may be
            told, errors = collecting.communicate()
    finally:
        robot.close()
    assert collecting.returncode == 0, errors
    assert "holds as many pictures as it may" in told
    entries = [entry for entry in read_record(out) if "file" in entry]
    assert [entry["answer"][0]["class_id"] for entry in entries] == ["stop", "stop"]
    assert [entry["stamp_ns"] % 10**9 for entry in entries] == [0, 0]
    assert len({entry["stamp_ns"] for entry in entries}) == 2


def test_boxes_of_a_live_detector_are_collected_and_taught(tmp_path: Path, capsys: Any) -> None:
    """Over DDS: what the boxes show becomes pictures, which are labeled and taught."""
    from helpers.detections import SIDE, array, street
    from helpers.graph import Robot, image, wait_until
    from vision_msgs.msg import Detection2DArray

    out, signs = tmp_path / "own", ("stop", "yield")
    robot = Robot()
    try:
        arguments = ["/image", "--detections", "/boxes", "--out", str(out), "--change", "0"]
        collecting = subprocess.Popen(
            [sys.executable, "-m", "repghost_ros.cli", "collect", *arguments, "--most", "24"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        images, arrays = robot.publisher(), robot.publisher("boxes", Detection2DArray)
        stamp = itertools.count(1)

        def ended() -> bool:
            number = next(stamp)
            picture, boxes = street(signs, seed=number)
            message = image(picture, number)
            images.publish(message)
            arrays.publish(array(message.header, boxes))
            return collecting.poll() is not None

        wait_until(ended, "24 pictures")
        told, errors = collecting.communicate()
    finally:
        robot.close()
    assert collecting.returncode == 0, errors
    assert "holds as many pictures as it may" in told
    kept = {entry["file"]: entry["stamp_ns"] for entry in read_record(out) if "file" in entry}
    assert len(kept) == 24
    for file, stamp_ns in kept.items():
        shown = cv2.imread(str(out / file))
        assert shown.shape == (SIDE, SIDE, 3)
        picture, _ = street(signs, seed=stamp_ns // 10**9)
        halves = dict(zip(signs, np.hsplit(picture, 2)))
        label = min(signs, key=lambda name: cv2.absdiff(shown, halves[name]).mean())
        assert cv2.absdiff(shown, halves[label]).mean() < 4  # through planes of Y, U and V
        (out / label).mkdir(exist_ok=True)
        (out / file).rename(out / label / Path(file).name)
    model = tmp_path / "signs.onnx"
    assert main(["teach", str(out), "--out", str(model), "--model", str(DEMO)]) == 0
    capsys.readouterr()
    cv2.imwrite(str(tmp_path / "new.png"), street(signs, seed=99)[0][:, :SIDE])
    assert main(["classify", str(tmp_path / "new.png"), "--model", str(model), "--json"]) == 0
    (answered,) = json.loads(capsys.readouterr().out)["results"]
    assert answered["results"][0]["class_id"] == "stop"


def test_answers_are_those_to_a_topic(bag: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["collect", str(bag), "--answers", "/a", "--out", str(tmp_path / "own")]) == 2
    assert "--answers is for a topic" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unlabeled").mkdir()
    (tmp_path / "cup").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "unlabeled" / name).write_bytes(jpeg(ord(name[0])))
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    server = serve_labeling(Labeling(folder), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def ask(
    address: str, what: str, body: dict[str, str] | None = None, kind: str = "application/json"
) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + what, data, {"Content-Type": kind})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_a_label_moves_the_picture(folder: Path, address: str) -> None:
    assert ask(address, "state")["picture"] == "a.jpg"
    state = ask(address, "label", {"picture": "a.jpg", "class": "cup"})
    assert (state["picture"], state["left"]) == ("b.jpg", 2)
    assert {"name": "cup", "count": 1} in state["classes"]
    assert (folder / "cup" / "a.jpg").read_bytes() == jpeg(ord("a"))
    state = ask(address, "label", {"picture": "b.jpg", "class": "red mug"})  # a new class
    assert {"name": "red mug", "count": 1} in state["classes"]
    state = ask(address, "skip", {"picture": "c.jpg"})
    assert (state["picture"], state["skipped"]) == (None, 1)
    state = ask(address, "undo", {})
    assert (state["picture"], state["left"]) == ("b.jpg", 1)
    assert (folder / "unlabeled" / "b.jpg").is_file()


@pytest.mark.parametrize("name", ["../out", "", ".hidden", "unlabeled", "a/b"])
def test_a_class_is_a_plain_folder(folder: Path, address: str, name: str) -> None:
    answer = ask(address, "label", {"picture": "a.jpg", "class": name})
    assert "a class cannot be called" in answer["error"]
    assert (folder / "unlabeled" / "a.jpg").is_file()


def test_the_picture_is_served(folder: Path, address: str) -> None:
    with urllib.request.urlopen(address + "picture/a.jpg") as answer:
        assert answer.read() == jpeg(ord("a"))
    for path in ("picture/..%2Fcollected.jsonl", "picture/none.jpg", "nowhere"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + path)
    cv2.imwrite(str(folder / "unlabeled" / "d.tiff"), scene(1))
    with urllib.request.urlopen(address + "picture/d.tiff") as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
    with urllib.request.urlopen(address) as answer:
        assert b"width=device-width" in answer.read()


def test_other_sites_cannot_label(folder: Path, address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="415"):
        ask(address, "label", {"picture": "a.jpg", "class": "cup"}, "text/plain")
    assert (folder / "unlabeled" / "a.jpg").is_file()


def test_a_picture_that_is_gone_is_named(folder: Path, address: str) -> None:
    (folder / "unlabeled" / "a.jpg").unlink()
    assert (
        "is not there any more"
        in ask(address, "label", {"picture": "a.jpg", "class": "x"})["error"]
    )


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        Labeling(tmp_path / "missing")
