# SPDX-License-Identifier: Apache-2.0
"""Boxes recorded in a bag, answered offline as the node answers them live."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.detections import BOXES, PICTURE, Detector, array
from helpers.graph import Robot, image, running_node, wait_until
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from vision_msgs.msg import Detection2DArray

from repghost_ros.cli import main
from repghost_ros.errors import SourceError
from repghost_ros.runs.answers import read_results
from repghost_ros.sources.types import DETECTIONS, IMAGE, typestore
from repghost_ros.vision.boxes import Box

STAMPS = (80, 81, 82)
CHOSEN: dict[str, Any] = {"detections_scale": "0.9", "detections_max": "4"}
"""Parameters of the node, and options of the command."""


def recorded() -> list[tuple[str, Any]]:
    """Return topics and messages: images and boxes in both orders, some of which show nothing."""
    sent: list[tuple[str, Any]] = []
    for stamp in STAMPS:
        message = image(np.roll(PICTURE, (stamp - 80) * 60, axis=1), stamp)
        boxes = [*BOXES[stamp % 2 :], Box(-50.0, 5.0, 10.0, 10.0), replace(BOXES[0], theta=0.3)]
        pair = [("image", message), ("boxes", array(message.header, boxes))]
        sent += pair if stamp % 2 else pair[::-1]
    return [*sent, ("image", image(PICTURE, 83))]  # which never gets boxes


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record them."""
    path = tmp_path_factory.mktemp("recorded") / "bag"
    store = typestore()
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            name: writer.add_connection(f"/{name}", kind, typestore=store)
            for name, kind in (("image", IMAGE), ("boxes", DETECTIONS))
        }
        for index, (name, message) in enumerate(recorded()):
            writer.write(topics[name], 80_000_000_000 + index, serialize_message(message))
    return path


def replayed(bag: Path, out: Path, **options: str) -> None:
    """Write the answers; the command fails for the boxes outside."""
    command = ["replay", str(bag), "--detections", "/boxes", "--model", "demo", "--out", str(out)]
    for name, value in {**CHOSEN, **options}.items():
        command += [f"--{name.replace('_', '-')}", value]
    assert main(command) == 1


@pytest.mark.parametrize("decided", [{}, {"smoothing": "0.5", "hold": "1.0"}], ids=["", "smoothed"])
def test_a_bag_is_answered_offline_as_live(
    bag: Path, tmp_path: Path, decided: dict[str, Any]
) -> None:
    """The same images and boxes in a bag and on the node: the same classes and scores, box by box."""
    replayed(bag, tmp_path / "answers.jsonl", **decided)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]

    robot = Robot()
    # However slow this machine is, no message is pushed out by later ones.
    kept: dict[str, Any] = {"qos_reliability": "reliable", "qos_depth": "50"}
    with running_node(detections="boxes", **kept, **CHOSEN, **decided):
        changed = robot.collect(Detection2DArray, "repghost/changed")
        detector = Detector(robot)
        for name, message in recorded():
            (detector.images if name == "image" else detector.boxes).publish(message)
        live = [detector.answer(stamp) for stamp in STAMPS]
        if decided:
            wait_until(lambda: changed, "the changes")
    robot.close()

    answered = 0
    for answer in live:
        stamp_ns = answer.header.stamp.sec * 10**9
        offline = [row for row in rows if row["stamp_ns"] == stamp_ns]
        assert [row["number"] for row in offline] == list(range(len(answer.detections)))
        for row, detection in zip(offline, answer.detections, strict=True):
            assert row["x"] == detection.bbox.center.position.x
            found = [
                (each.hypothesis.class_id, each.hypothesis.score) for each in detection.results
            ]
            if row["outcome"] == "skipped":
                assert [name for name, _ in found] == [row["detected"]]
                continue
            expected = [(each["class_id"], each["score"]) for each in row["results"]]
            assert [name for name, _ in found] == [name for name, _ in expected]
            assert np.allclose([score for _, score in found], [score for _, score in expected])
            answered += bool(found)
    assert answered == 11
    assert len(rows) == sum(len(answer.detections) for answer in live)
    told = [(a.header.stamp.sec * 10**9, each.id) for a in changed for each in a.detections]
    assert told == [(row["stamp_ns"], row["object_id"]) for row in rows if row["changed"]]
    assert bool(told) == bool(decided)


def test_every_format_has_a_row_a_box(bag: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"answers.{suffix}" for suffix in ("jsonl", "csv", "parquet")]
    for path in paths:
        replayed(bag, path)
    rows = [json.loads(line) for line in paths[0].read_text().splitlines()]
    with paths[1].open(newline="") as file:
        table = list(csv.DictReader(file))
    for row, cells in zip(rows, table, strict=True):
        assert cells["detected"] == row["detected"]
        assert float(cells["x"]) == row["x"]
        assert cells["class_1"] == (row["results"][0]["class_id"] if row["results"] else "")
    columns = pytest.importorskip("pyarrow.parquet").read_table(paths[2])
    firsts = [row for row in columns.to_pylist() if row["rank"] in (None, 1)]
    assert [(row["number"], row["x"]) for row in firsts] == [
        (row["number"], row["x"]) for row in rows
    ]
    for path in paths:
        with pytest.raises(SourceError, match="a row a box"):
            read_results(path)


def test_the_report_names_the_model_and_the_resize_policy(
    bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["replay", str(bag), "--model", "demo", "--backend", "onnx", "--json"]
    assert main(command) == 0
    whole = json.loads(capsys.readouterr().out)
    main([*command, "--detections", "/boxes"])
    boxes = json.loads(capsys.readouterr().out)
    for name in ("model", "model_sha256", "backend", "resize"):
        assert boxes[name] == whole[name]
    main([*command, "--detections", "/boxes", "--resize", "letterbox"])
    assert json.loads(capsys.readouterr().out)["resize"] == "letterbox"


def test_what_is_of_whole_images_is_refused(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["replay", str(bag), "--detections"]
    assert main([*command, "/boxes", "--plot", "plot.png"]) == 2
    assert "--plot is of whole images" in capsys.readouterr().err
    assert main([*command, "/image"]) == 1  # and no model is looked for
    assert "has no boxes on '/image', but on /boxes" in capsys.readouterr().err
    assert main(["replay", str(bag), "--hold", "1"]) == 2
    assert "--hold follows a detector's objects" in capsys.readouterr().err


def test_boxes_are_collected(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each box that shows something becomes a picture of its own, to be labeled and taught."""

    def collected(*options: str) -> dict[str, Any]:
        command = ["collect", str(bag), "--detections", "/boxes", "--out", str(tmp_path), "--json"]
        assert main([*command, "--change", "0", *options]) == 0
        about: dict[str, Any] = json.loads(capsys.readouterr().out)["results"][0]
        return about

    about = collected("--most", "5")
    assert about["full"]
    again = collected()
    assert (about["kept"], again["kept"]) == (5, 9)  # it goes on
    assert collected()["kept"] == 0
    first, *_ = sorted((tmp_path / "unlabeled").iterdir())
    difference = cv2.absdiff(cv2.imread(str(first)), PICTURE[:, :120])
    assert difference.mean() < 2  # the first box, through planes of Y, U and V
    assert main(["collect", str(tmp_path), "--detections", "/boxes", "--out", str(tmp_path)]) == 2
