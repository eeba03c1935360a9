# SPDX-License-Identifier: Apache-2.0
"""`repghost replay`: bags of every kind with known truth, damaged bags, results and comparisons."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.bags import (
    COMPRESSED,
    HEIGHT,
    IMAGE,
    ROS1,
    ROS2,
    WIDTH,
    Pixels,
    bgr8,
    compressed,
    film,
    header,
    image,
    rgb8,
    sign_bag,
    stamp_ns,
    write_ros1,
    write_ros2,
    yuyv,
)
from helpers.toys import write_classifier
from helpers.waiting import WAIT
from onnx import helper
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from repghost_ros import open_model
from repghost_ros.cli import main
from repghost_ros.engine.results import Result
from repghost_ros.errors import SourceError
from repghost_ros.runs.answers import open_results, read_results
from repghost_ros.runs.difference import Change, compare
from repghost_ros.runs.replay import Answer, replay
from repghost_ros.sources.bag_writer import STORAGES
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.signs import LABELS
from repghost_ros.sources.types import CLASSIFICATION, DETECTIONS, TARGETS, typestore

FRAMES = 12
TRUTH = [label for label, _ in film(FRAMES)]
DEMO = ("--model", "demo")


def replayed(path: Path, topic: str = "") -> list[Answer]:
    classifier = open_model("demo")
    try:
        with Bag(path) as bag:
            return list(replay(bag, bag.image_topic(topic).name, classifier))
    finally:
        classifier.close()


def best(answers: list[Answer]) -> list[str]:
    return [answer.results[0].class_id if answer.results else answer.error for answer in answers]


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        *((storage, way) for storage in STORAGES for way in ("none", "file", "message")),
        ("mcap", "storage"),
    ],
)
def test_ros2_bags(storage: str, compression: str, tmp_path: Path) -> None:
    answers = replayed(sign_bag(tmp_path / "bag", FRAMES, storage=storage, compression=compression))
    assert best(answers) == TRUTH
    assert [answer.stamp_ns for answer in answers] == [stamp_ns(i) for i in range(FRAMES)]
    assert all(answer.time_ns == answer.stamp_ns + 5_000_000 for answer in answers)
    assert {(a.topic, a.frame_id, len(a.results)) for a in answers} == {
        ("/camera/image_raw", "camera", 5)
    }


def nv12(picture: Pixels) -> tuple[str, Pixels, int]:
    planar = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    luma, chroma = np.split(planar, [WIDTH * HEIGHT])
    return "nv12", np.concatenate([luma, chroma.reshape(2, -1).T.reshape(-1)]), WIDTH


@pytest.mark.parametrize("encode", [bgr8, rgb8, yuyv, nv12])
@pytest.mark.parametrize("compression", ["", "lz4"])
def test_ros1_bags(encode: Any, compression: str, tmp_path: Path) -> None:
    images = [image(ROS1, i, picture, encode) for i, (_, picture) in enumerate(film(FRAMES))]
    path = write_ros1(tmp_path / "a.bag", {"/image": images}, compression)
    assert best(replayed(path)) == TRUTH


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images(suffix: str, tmp_path: Path) -> None:
    images = [compressed(ROS2, i, shown, suffix) for i, (_, shown) in enumerate(film(FRAMES))]
    path = write_ros2(tmp_path / "bag", {"/image/compressed": images})
    assert best(replayed(path)) == TRUTH


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_a_single_file_of_a_bag(storage: str, suffix: str, tmp_path: Path) -> None:
    path = sign_bag(tmp_path / "bag", FRAMES, storage=storage)
    (file,) = path.glob(f"*{suffix}")
    assert best(replayed(Path(shutil.move(file, tmp_path)))) == TRUTH


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_result_bag_has_the_original_stamps(storage: str, tmp_path: Path) -> None:
    bag, out = sign_bag(tmp_path / "bag", FRAMES), tmp_path / "out"
    assert main(["replay", str(bag), *DEMO, "--out", str(out), "--storage", storage]) == 0
    # Any reader of bags can read it: the definitions are in the bag.
    with AnyReader([out]) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == {
            "/repghost/classification": CLASSIFICATION
        }
        read = [(t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()]
    for index, (time_ns, message) in enumerate(read):
        stamp: Any = message.header.stamp  # type: ignore[attr-defined]
        assert stamp.sec * 10**9 + stamp.nanosec == stamp_ns(index)
        assert time_ns == stamp_ns(index) + 5_000_000
        assert message.results[0].class_id == TRUTH[index]  # type: ignore[attr-defined]
    assert len(read) == FRAMES
    assert "version: 8" in (out / "metadata.yaml").read_text()
    assert main(["replay", str(bag), *DEMO, "--out", str(out)]) == 1  # it is not overwritten


@pytest.mark.parametrize("name", [CLASSIFICATION, DETECTIONS, TARGETS])
def test_types_are_those_that_ros_has(name: str) -> None:
    """The RIHS01 hash of our definition is that of the interface package that was built."""
    package, _, message = name.split("/")
    ament = pytest.importorskip("ament_index_python.packages")
    share = Path(ament.get_package_share_directory(package))
    description = share / "msg" / f"{message}.json"
    if not description.exists():
        pytest.skip("this distribution's interfaces have no type hashes: they came with Iron")
    built = json.loads(description.read_text())
    hashes = {each["type_name"]: each["hash_string"] for each in built["type_hashes"]}
    assert typestore().hash_rihs01(name) == hashes[name]


def test_csv_jsonl_and_bag_hold_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    bag = sign_bag(tmp_path / "bag", FRAMES)
    files = [tmp_path / name for name in ("a.csv", "a.jsonl", "a.parquet", "a_bag")]
    for file in files:
        assert main(["replay", str(bag), *DEMO, "--out", str(file)]) == 0
    table, lines, columns, recorded = (read_results(file) for file in files)
    assert table == lines == columns == replayed(bag)
    assert files[0].read_text().splitlines()[0].endswith("class_4,score_4,class_5,score_5")
    assert [answer.results for answer in recorded] == [answer.results for answer in lines]
    for one in files:
        for other in files:
            assert main(["replay", str(one), "--compare", str(other)]) == 0


def test_summary_and_plot(tmp_path: Path, capsys: Any) -> None:
    bag, plot = sign_bag(tmp_path / "bag", FRAMES), tmp_path / "plot" / "timeline.png"
    assert main(["replay", str(bag), *DEMO, "--json", "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["refused"]) == (FRAMES, 0)
    assert sum(row["frames"] for row in report["results"]) == FRAMES
    assert [run["class_id"] for run in report["timeline"]] == list(dict.fromkeys(TRUTH))
    assert report["timeline"][0]["to_ns"] == stamp_ns(2)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main(["replay", str(bag), *DEMO]) == 0
    assert f"{FRAMES} frames, 0 refused" in capsys.readouterr().out


def test_a_frame_that_cannot_be_read_costs_itself_alone(tmp_path: Path, capsys: Any) -> None:
    images = [image(ROS2, i, picture) for i, (_, picture) in enumerate(film(FRAMES))]
    images[3].encoding = "16SC7"
    images[5].data = images[5].data[:1000]
    bag = write_ros2(tmp_path / "bag", {"/image": images})
    out = tmp_path / "out.jsonl"
    assert main(["replay", str(bag), *DEMO, "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert "12 frames, 2 refused, 0 failed" in told.out
    assert "'16SC7'" in told.err
    assert "truncated" in told.err
    answers = read_results(out)
    assert [bool(answer.error) for answer in answers] == [i in (3, 5) for i in range(FRAMES)]
    assert all(best(answers)[i] == TRUTH[i] for i in range(FRAMES) if i not in (3, 5))


def test_a_broken_message_costs_itself_alone(tmp_path: Path, capsys: Any) -> None:
    bag = sign_bag(tmp_path / "bag", FRAMES, storage="sqlite3")
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE messages SET data = substr(data, 1, 20) WHERE id = 4")
    assert main(["replay", str(bag), *DEMO, "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["refused"] == 1
    assert "the message cannot be read" in told.err
    assert best(replayed(bag))[4:] == TRUTH[4:]


def test_several_topics_are_listed(tmp_path: Path, capsys: Any) -> None:
    pictures = [picture for _, picture in film(FRAMES)]
    topics = {
        "/left": [image(ROS2, i, picture) for i, picture in enumerate(pictures)],
        "/right": [compressed(ROS2, i, picture) for i, picture in enumerate(pictures[:3])],
    }
    bag = write_ros2(tmp_path / "bag", topics)
    assert main(["replay", str(bag), *DEMO]) == 1
    told = capsys.readouterr().err
    assert f"/left ({IMAGE}, 12 messages), /right ({COMPRESSED}, 3 messages)" in told
    assert best(replayed(bag, "/right")) == TRUTH[:3]
    assert main(["replay", str(bag), *DEMO, "--topic", "/rear"]) == 1
    assert "no images on '/rear', but on /left" in capsys.readouterr().err


def test_topics_are_listed_when_asked(tmp_path: Path, capsys: Any) -> None:
    bag = sign_bag(tmp_path / "bag", 3)
    assert main(["replay", str(bag), "--list", "--json"]) == 0
    listed = [{"name": "/camera/image_raw", "type": IMAGE, "messages": 3}]
    assert json.loads(capsys.readouterr().out)["results"] == listed


def test_a_topic_without_messages(tmp_path: Path, capsys: Any) -> None:
    with Writer(tmp_path / "bag", version=8) as writer:
        writer.add_connection("/image", IMAGE, typestore=ROS2)
    assert main(["replay", str(tmp_path / "bag"), *DEMO]) == 1
    assert "no message on '/image'" in capsys.readouterr().err


def test_a_bag_without_images(tmp_path: Path, capsys: Any) -> None:
    text = ROS2.types["std_msgs/msg/String"]("hello")
    bag = write_ros2(tmp_path / "bag", {"/chatter": [text]})
    assert main(["replay", str(bag), *DEMO]) == 1
    assert "holds no images, only /chatter" in capsys.readouterr().err


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garble(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 100)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *((k, d) for k in ("mcap", "sqlite3", "ros1") for d in (garble, empty, Path.unlink)),
        ("mcap", truncate),  # before the end of the first chunk
        ("metadata", garble),
        ("metadata", empty),
    ],
)
def test_damaged_bags(kind: str, damage: Any, tmp_path: Path, capsys: Any) -> None:
    if kind == "ros1":
        images = [image(ROS1, i, picture) for i, (_, picture) in enumerate(film(FRAMES))]
        bag = file = write_ros1(tmp_path / "a.bag", {"/image": images})
    else:
        bag = sign_bag(tmp_path / "bag", FRAMES, storage="mcap" if kind == "metadata" else kind)
        pattern = "metadata.yaml" if kind == "metadata" else "*.[dm]*[3p]"
        (file,) = bag.glob(pattern)
    damage(file)
    assert main(["replay", str(bag), *DEMO]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"repghost: bag '{bag}' ")
    assert "Traceback" not in told


def test_missing_types_are_known_where_they_are_standard(tmp_path: Path) -> None:
    """Bags of Humble's sqlite3 have no definitions in them."""
    bag = sign_bag(tmp_path / "bag", FRAMES, storage="sqlite3")
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
    assert best(replayed(bag)) == TRUTH


@pytest.mark.parametrize("summary", [True, False])
def test_a_definition_in_an_unknown_language_keeps_nobody_out(
    summary: bool, tmp_path: Path
) -> None:
    """rosbag2 stores an action's feedback so, beside the images."""
    topics = {
        "/image": [image(ROS2, i, picture) for i, (_, picture) in enumerate(film(FRAMES))],
        "/feedback": [ROS2.types["std_msgs/msg/String"]("moving")],
    }
    bag = write_ros2(tmp_path / "bag", topics)
    (file,) = bag.glob("*.mcap")
    known = b"std_msgs/msg/String\x07\x00\x00\x00"
    content = file.read_bytes().replace(known + b"ros2msg", known + b"unknown")
    assert known + b"unknown" in content
    file.write_bytes(content)
    assert best(replayed(bag if summary else file)) == TRUTH


def test_a_topic_that_holds_nothing_is_no_choice(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=8) as writer:
        writer.add_connection("/image", IMAGE, typestore=ROS2)
        held = writer.add_connection("/image/compressed", COMPRESSED, typestore=ROS2)
        raw = ROS2.serialize_cdr(compressed(ROS2, 0, film(1)[0][1]), COMPRESSED)
        writer.write(held, stamp_ns(0), raw)
    assert best(replayed(tmp_path / "bag")) == TRUTH[:1]


def test_what_a_damaged_bag_still_holds_is_answered(tmp_path: Path, capsys: Any) -> None:
    bag, out = sign_bag(tmp_path / "bag", 24, compression="storage"), tmp_path / "out.jsonl"
    (file,) = bag.glob("*.mcap")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100] = bytes(100)
    file.write_bytes(content)
    read: list[Any] = []
    with Bag(bag) as opened, pytest.raises(SourceError, match="of 24 messages"):
        read.extend(opened.messages("/camera/image_raw"))
    readable = len(read)
    assert 0 < readable < 24
    assert [read[0].stamp_ns, read[-1].stamp_ns] == [stamp_ns(0), stamp_ns(23)]  # around the hole
    assert main(["replay", str(bag), *DEMO, "--out", str(out), "--json"]) == 1
    told = capsys.readouterr()
    assert f"{readable} of 24 messages" in told.err
    report = json.loads(told.out)
    assert (report["frames"], len(read_results(out))) == (readable, readable)
    assert f"{readable} of 24 messages" in report["error"]


def test_an_end_by_a_signal_leaves_a_bag_that_can_be_read(tmp_path: Path) -> None:
    frames = [compressed(ROS2, i % 10, shown, ".jpg") for i, (_, shown) in enumerate(film(10))]
    bag, out = write_ros2(tmp_path / "bag", {"/image": frames * 60}), tmp_path / "out"
    command = [sys.executable, "-m", "repghost_ros.cli", "replay", str(bag), *DEMO]
    with subprocess.Popen([*command, "--workers", "1", "--out", str(out)]) as process:
        while not (tmp_path / ".out.partial" / "out").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        process.terminate()
        assert process.wait(WAIT) == 130
    assert 0 < len(read_results(out)) < 600


def test_options_are_those_of_the_node(tmp_path: Path, capsys: Any) -> None:
    pictures = [np.hstack([film(4)[0][1], film(4)[3][1]])]
    wide = image(ROS2, 0, pictures[0])
    wide.width, wide.step = 2 * WIDTH, 6 * WIDTH
    bag = write_ros2(tmp_path / "bag", {"/image": [wide]})
    region = f"{WIDTH},0,{WIDTH},{HEIGHT}"
    options = ("--roi", region, "--class-id", "index", "--score-threshold", "0.5")
    out = tmp_path / "out.jsonl"
    assert main(["replay", str(bag), *DEMO, *options, "--out", str(out)]) == 0
    (answer,) = read_results(out)
    assert [result.class_id for result in answer.results] == [str(LABELS.index(TRUTH[3]))]
    outside = f"{2 * WIDTH},0,8,8"
    assert main(["replay", str(bag), *DEMO, "--roi", outside]) == 1
    assert "lies outside" in capsys.readouterr().err
    for wrong in ("1,2,3", "0,0,0,5", "a"):
        with pytest.raises(SystemExit):
            main(["replay", str(bag), *DEMO, "--roi", wrong])


def test_scores_are_smoothed_as_by_the_node(tmp_path: Path, capsys: Any) -> None:
    bag, out = sign_bag(tmp_path / "bag", 6), tmp_path / "out.jsonl"
    assert TRUTH[0] != TRUTH[3]
    assert main(["replay", str(bag), *DEMO, "--smoothing", "0.9", "--out", str(out)]) == 0
    answers = list(read_results(out))
    assert best(answers) == [TRUTH[0]] * 6
    scores = [answer.results[0].score for answer in answers]
    assert scores[5] == pytest.approx(0.9**3 * scores[2], abs=0.02)
    assert main(["replay", str(bag), *DEMO, "--smoothing", "1"]) == 2
    assert main(["replay", str(bag), str(bag), *DEMO, "--smoothing", "0.5"]) == 2
    assert "--smoothing is for a single bag" in capsys.readouterr().err


def test_not_a_bag(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        Bag(tmp_path / "absent")
    with pytest.raises(SourceError, match="read as a bag"):
        Bag(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"film")
    with pytest.raises(SourceError, match="read as a bag"):
        Bag(tmp_path / "film.mp4")


def answers_of(*frames: tuple[int, str, float]) -> list[Answer]:
    return [Answer("/a", stamp, stamp, "", (Result(best, score),)) for stamp, best, score in frames]


def test_compare_tells_every_kind_of_change() -> None:
    before = answers_of((1, "a", 0.9), (2, "b", 0.8), (3, "c", 0.7), (3, "d", 0.6))
    now = answers_of((1, "a", 0.8), (2, "x", 0.8), (3, "c", 0.7), (4, "e", 0.5))
    difference = compare(before, now)
    assert (difference.frames, difference.missing, difference.extra) == (3, 1, 1)
    assert difference.same_top1 == 2
    assert difference.agreement == 2 / 5
    assert difference.max_drift == pytest.approx(0.8)
    assert difference.mean_drift == pytest.approx(0.3)
    assert difference.changed == (Change(2, "b", "x"),)
    assert compare(before, before).agreement == 1.0
    assert compare([], []).agreement == 0.0  # nothing proves nothing
    assert compare(before, answers_of((1, "a", 0.9), (2, "b", math.nan))).max_drift == 1.0


def test_frames_that_were_refused_before_are_no_change(tmp_path: Path, capsys: Any) -> None:
    images = [image(ROS2, i, picture) for i, (_, picture) in enumerate(film(FRAMES))]
    for each in images:  # a driver without a clock
        each.header.stamp.sec = each.header.stamp.nanosec = 0
    good = write_ros2(tmp_path / "good", {"/image": images})
    images[3].encoding = "16SC7"
    bad = write_ros2(tmp_path / "bad", {"/image": images})
    before, golden = tmp_path / "before.jsonl", tmp_path / "golden.csv"
    assert main(["replay", str(good), *DEMO, "--out", str(before)]) == 0
    assert main(["replay", str(bad), *DEMO, "--out", str(golden)]) == 1
    assert main(["replay", str(bad), *DEMO, "--compare", str(golden)]) == 0
    capsys.readouterr()
    assert main(["replay", str(bad), *DEMO, "--compare", str(before), "--json"]) == 1
    compared = json.loads(capsys.readouterr().out)["compared"]
    # It shifts no other frame's partner.
    assert (compared["missing"], compared["changed"], compared["max_drift"]) == (1, [], 0.0)


def write_fragile_model(path: Path) -> Path:
    """Write a model of two classes that answers NaN where the picture is dark."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Log", ["flat"], ["log"]),
        helper.make_node("MatMul", ["log", "w"], ["y"]),
    ]
    return write_classifier(path, nodes, {"w": np.eye(3, 2)}, 2, labels="a\nb")


def test_a_backend_that_fails_is_no_broken_recording(tmp_path: Path, capsys: Any) -> None:
    bright, dark = (
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    )
    images = [image(ROS2, i, picture) for i, picture in enumerate((bright, dark, bright))]
    images[2].encoding = "16SC7"
    one = write_ros2(tmp_path / "one", {"/image": images})
    two = write_ros2(tmp_path / "two", {"/image": images[:2]})
    model = ("--model", str(write_fragile_model(tmp_path / "fragile.onnx")))
    golden = tmp_path / "golden.csv"
    assert main(["replay", str(one), *model, "--out", str(golden), "--json"]) == 1
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert (report["frames"], report["refused"], report["failed"]) == (3, 1, 1)
    assert "failed: the model answered NaN" in told.err
    outcomes = [answer.outcome for answer in read_results(golden)]
    assert outcomes == ["answered", "failed", "refused"]
    # A device that still fails is not alike, even if it failed before.
    assert main(["replay", str(one), *model, "--compare", str(golden), "--json"]) == 1
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert (compared["refused"], compared["failed"]) == (1, 1)
    many = ["replay", str(one), str(two), *model, "--out", str(tmp_path / "many"), "--json"]
    assert main(many) == 1
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [(row["refused"], row["failed"]) for row in rows] == [(1, 1), (0, 1)]


def test_results_of_0_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text(
        "index,topic,time_ns,stamp_ns,frame_id,error,class_1,score_1\n"
        "0,/a,5,3,camera,,stop,0.9\n1,/a,6,4,camera,its encoding is unknown,,\n"
    )
    assert read_results(path) == [
        Answer("/a", 5, 3, "camera", (Result("stop", 0.9),)),
        Answer("/a", 6, 4, "camera", (), "its encoding is unknown", "refused"),
    ]


def test_frames_without_stamps_are_in_the_order_of_their_recording(
    tmp_path: Path, capsys: Any
) -> None:
    images = [image(ROS2, i, picture) for i, (_, picture) in enumerate(film(FRAMES))]
    for each in images:
        each.header.stamp.sec = each.header.stamp.nanosec = 0
    bag = str(write_ros2(tmp_path / "bag", {"/image": images}))
    assert main(["replay", bag, *DEMO, "--smoothing", "0.5", "--json"]) == 0
    told = capsys.readouterr()
    timeline = json.loads(told.out)["timeline"]
    assert timeline[0]["from_ns"] == stamp_ns(0) + 5_000_000
    assert timeline[-1]["to_ns"] == stamp_ns(FRAMES - 1) + 5_000_000
    assert told.err.count("header.stamp of zero") == 1


def test_a_topic_that_the_bag_lacks_is_an_error(tmp_path: Path) -> None:
    bag = sign_bag(tmp_path / "bag", 3)
    complaint = "no images on '/absent', but on /camera/image_raw"
    with (
        open_model("demo") as model,
        Bag(bag) as opened,
        pytest.raises(SourceError, match=complaint),
    ):
        list(replay(opened, "/absent", model))


def test_a_bag_recorded_on_foxy_can_be_compared_with(tmp_path: Path) -> None:
    bag, foxy = sign_bag(tmp_path / "bag", 3), get_typestore(Stores.ROS2_FOXY)
    own = {
        "vision_msgs/msg/ObjectHypothesis": "string id\nfloat64 score\n",
        "vision_msgs/msg/Classification2D": "std_msgs/Header header\n"
        "vision_msgs/ObjectHypothesis[] results\nsensor_msgs/Image source_img\n",
    }
    for name, definition in own.items():
        if name not in foxy.fielddefs:
            foxy.register(get_types_from_msg(definition, name))
    types = foxy.types
    nothing = np.zeros(0, np.uint8)
    messages = [
        types["vision_msgs/msg/Classification2D"](
            header(foxy, index),
            [types["vision_msgs/msg/ObjectHypothesis"](label, 0.9)],
            types[IMAGE](header(foxy, index), 0, 0, "", 0, 0, nothing),
        )
        for index, label in enumerate(TRUTH[:3])
    ]
    topics = {"/a/classification": messages, "/b/classification": messages[:1]}
    recorded = write_ros2(tmp_path / "recorded", topics, store=foxy)
    command = ["replay", str(bag), *DEMO, "--compare", str(recorded), "--max-drift", "0.2"]
    assert main([*command, "--compare-topic", "/a/classification"]) == 0
    assert main([*command, "--compare-topic", "/b/classification"]) == 1
    assert main(command) == 1  # which one?


@pytest.mark.parametrize("name", ["a.json", "a.mcap", "a.bag", "a.MCAP"])
def test_a_folder_is_not_named_like_a_file(name: str, tmp_path: Path, capsys: Any) -> None:
    bag = sign_bag(tmp_path / "bag", 3)
    assert main(["replay", str(bag), *DEMO, "--out", str(tmp_path / name)]) == 1
    assert "would be a folder" in capsys.readouterr().err


def test_sqlite3_is_not_written_where_it_would_go_astray(tmp_path: Path, capsys: Any) -> None:
    bag = sign_bag(tmp_path / "bag", 3)
    command = ["replay", str(bag), *DEMO, "--storage", "sqlite3", "--out", str(tmp_path / "a#1")]
    assert main(command) == 1
    assert "cannot be written with sqlite3" in capsys.readouterr().err


def test_what_makes_no_sense_is_said_before_the_replay(tmp_path: Path, capsys: Any) -> None:
    bag, out = sign_bag(tmp_path / "bag", 3), tmp_path / "out.CSV"
    assert main(["replay", str(bag), *DEMO, "--plot", "p.xyz"]) == 2
    assert "must end in .png" in capsys.readouterr().err
    assert main(["replay", str(bag), *DEMO, "--out", str(out)]) == 0
    assert main(["replay", str(out), "--compare", str(out), "--out", "other.csv"]) == 2
    assert "a result already" in capsys.readouterr().err


def test_a_result_that_broke_off_keeps_its_own_name(tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text("as it was\n")

    def broken_off() -> Iterator[Answer]:
        yield from answers_of((1, "a", 0.9))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_results(golden) as write:
        deque(map(write, broken_off()))
    assert golden.read_text() == "as it was\n"
    assert (tmp_path / "golden.partial.jsonl").read_text().endswith("\n")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_cut_result_is_not_taken_for_whole(name: str, tmp_path: Path) -> None:
    with open_results(tmp_path / name) as write:
        for answer in answers_of((1, "a", 0.9), (2, "b", 0.8)):
            write(answer)
    text = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(text[:-3])
    with pytest.raises(SourceError, match="breaks off"):
        read_results(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text + b"\n")  # as a spreadsheet leaves it
    assert len(read_results(tmp_path / name)) == 2


def test_regression_test_of_a_bag(tmp_path: Path, capsys: Any) -> None:
    bag, golden = sign_bag(tmp_path / "bag", FRAMES), tmp_path / "golden.jsonl"
    assert main(["replay", str(bag), *DEMO, "--out", str(golden)]) == 0
    assert main(["replay", str(bag), *DEMO, "--compare", str(golden)]) == 0
    lines = golden.read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    other = "no sign" if TRUTH[0] != "no sign" else "stop"
    first["results"][0] = {"class_id": other, "score": 1.0}
    golden.write_text(json.dumps(first) + "\n" + "".join(lines[1:]))
    capsys.readouterr()
    assert main(["replay", str(bag), *DEMO, "--compare", str(golden), "--json"]) == 1
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert compared["same_top1"] == FRAMES - 1
    assert not compared["alike"]
    allowed = ["--min-agreement", "0.9", "--max-drift", "1"]
    assert main(["replay", str(bag), *DEMO, "--compare", str(golden), *allowed]) == 0
    golden.write_text("".join(lines[1:]))  # a frame is missing
    assert main(["replay", str(bag), *DEMO, "--compare", str(golden)]) == 1


def test_what_is_compared_with_is_not_overwritten(tmp_path: Path, capsys: Any) -> None:
    bag, golden = sign_bag(tmp_path / "bag", 3), tmp_path / "golden.jsonl"
    assert main(["replay", str(bag), *DEMO, "--out", str(golden)]) == 0
    before = golden.read_text()
    both = ["--out", str(golden), "--compare", str(golden)]
    assert main(["replay", str(bag), *DEMO, *both]) == 2
    assert "overwrite" in capsys.readouterr().err
    assert golden.read_text() == before


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_line_breaks_survive(name: str, tmp_path: Path) -> None:
    error = "first\nsecond\r\nthird" + 200_000 * "x"
    answers = [Answer("/a", 1, 2, "frame\u2028\x85", (), error, "refused")]
    with open_results(tmp_path / name) as write:
        write(answers[0])
    assert read_results(tmp_path / name) == answers


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "some,table\n1,2\n"),
        ("a.csv", ""),
        ("a.jsonl", "no json\n"),
        ("a.jsonl", '{"other": 1}\n'),
        ("a.jsonl", "[1, 2]\n"),
    ],
)
def test_results_of_something_else(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match="holds no results"):
        read_results(tmp_path / name)
    with pytest.raises(SourceError, match="cannot be read"):
        read_results(tmp_path / f"absent{name}")
