# SPDX-License-Identifier: Apache-2.0
"""The `repghost` command as users type it: files in, tables, JSON and exit codes out."""

from __future__ import annotations

import ctypes
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from helpers.bags import sign_bag
from helpers.server import Archive
from helpers.toys import write_color_model

import repghost_ros.native as native
from emulator.board import Emulator, write_model
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.cli import main
from repghost_ros.cli.program import COMMANDS
from repghost_ros.cli.report import SCHEMA, Table
from repghost_ros.cli.terminal import fitted
from repghost_ros.errors import (
    SourceError,
    without_passwords,
)
from repghost_ros.graphs.graph import load, save
from repghost_ros.graphs.head import copy_with_metadata
from repghost_ros.paths import share
from repghost_ros.runs import doctor
from repghost_ros.sources.pictures import find, pictures
from repghost_ros.sources.signs import LABELS, render, sequence
from repghost_ros.version import __version__
from repghost_ros.vision import turbojpeg
from repghost_ros.zoo.catalogue import MODELS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a folder of pictures, one of them in a subfolder."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for name in ("stop.png", "yield.jpg", "more/roundabout.bmp"):
        picture = render(Path(name).stem, np.random.default_rng(3), 320, 240)
        cv2.imwrite(str(folder / name), picture)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 240))
    film = sequence(1, 320, 240, frames_per_scene=4)
    for _ in range(8):
        writer.write(next(film)[1])
    writer.release()
    return path


def repghost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "repghost_ros.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_help_names_every_command() -> None:
    ended = repghost("--help")
    assert ended.returncode == 0
    assert all(f"\n    {command}" in ended.stdout for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])


def test_no_command_needs_ros() -> None:
    """Whatever `play` needs it asks for when it runs."""
    program = (
        "import sys; sys.modules['rclpy'] = None\n"
        "from repghost_ros.cli import main\n"
        "sys.exit(main(['models']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_models_lists_published_figures_and_the_store(store: Path, capsys: Any) -> None:
    store.mkdir()
    (store / MODELS["130"].file_name("onnx")).write_bytes(bytes(1_500_000))
    assert main(["models"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    row = next(line for line in lines if line[:2] == ["130", "RepGhost"])
    assert row[2:] == ["5.48", "75.00", "73.57", "1.87", "744", "935", "1826", "-", "1.5"]
    assert lines[1][:2] == ["*", "mobileone_s0"]  # the fastest
    assert main(["models", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    assert listed.keys() == MODELS.keys()
    assert listed["130"]["stored_bytes"] == {"bin": None, "onnx": 1_500_000}
    assert listed["100"]["published"]["fps"] == 964.69
    assert listed["repvit_m0_9"]["preprocessing"]["crop_share"] == 0.95
    assert listed["repvit_m0_9"]["bin"] == "RepViT_m0_9_224x224_nv12.bin"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            ["--at-least-fps", "800", "--at-least-top1", "71"],
            ["100", "repvit_m0_9", "111"],
        ),
        (["--family", "RepViT", "--sort", "top1"], ["repvit_m1_1", "repvit_m1_0", "repvit_m0_9"]),
        (["--front", "--sort", "params", "--at-least-fps", "1000"], None),
    ],
)
def test_models_are_chosen_and_sorted(
    options: list[str], names: list[str] | None, store: Path, capsys: Any
) -> None:
    assert main(["models", *options, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["results"]
    wanted = names or ["mobileone_s0", "mobilenetv4_conv_small", "mobileone_s1"]
    assert [row["name"] for row in listed] == wanted


def test_models_are_drawn(store: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    assert main(["models", "--plot", str(tmp_path / "zoo.svg")]) == 0
    assert "repvit_m1_1" in (tmp_path / "zoo.svg").read_text()
    assert main(["models", "--plot", str(tmp_path / "zoo.txt")]) == 2


def test_signs_are_named_by_the_demo_model(tmp_path: Path, capsys: Any) -> None:
    assert main(["signs", str(tmp_path / "signs"), "--size", "320x240", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)["results"]
    assert [row["class"] for row in drawn] == list(LABELS)
    assert main(["eval", str(tmp_path / "signs"), "--model", "demo", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["top1"] > 0.9
    with pytest.raises(SystemExit, match="2"):
        main(["signs", str(tmp_path), "--size", "8x8"])


@pytest.mark.parametrize("width", [24, 40, 60, 80, 200])
def test_a_table_fits_the_terminal_and_numbers_stay_whole(width: int) -> None:
    rows = [("a model of a long name", 72.25, 1553, "an error of many words", None)]
    table = Table(("model", "published top-1", "FPS", "error", "ms"), rows)
    shown = table.fitted(width)
    assert max(map(len, shown.splitlines())) <= width
    assert {"72.25", "1553", "-"} <= set(shown.split())
    assert all(word in shown.split() for cell in rows[0][:4:3] for word in cell.split())


def test_lines_on_a_terminal_are_wrapped_between_words() -> None:
    line = "   note  board      none: models run with ONNX Runtime at 10.6 ms"
    assert fitted(line, None) == line
    assert fitted(line, 44).splitlines() == [
        "   note  board      none: models run with",
        "                    ONNX Runtime at 10.6 ms",
    ]
    address = "https://example.org/" + "x" * 60
    assert address in fitted(f"see {address} and more", 40)


def test_download(
    archive: Archive,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setenv("REPGHOST_MODEL_URL", archive.url)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["download", "100", "111", "--format", "onnx", "--json"]) == 0
    told = capsys.readouterr()
    assert [Path(file["path"]).name for file in json.loads(told.out)["results"]] == [
        "repghostnet_100.onnx",
        "repghostnet_111.onnx",
    ]
    assert "100%" in told.err  # the progress bar
    assert main(["download", "--family", "RepViT", "--format", "onnx"]) == 0
    assert main(["download", "--family", "RepViT", "--format", "onnx"]) == 0
    assert len(archive.gets) == 5  # nothing was fetched twice
    capsys.readouterr()
    archive.status = 404
    assert main(["download", "100", "150", "--format", "bin"]) == 1
    assert "RepGhost_150" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["download", "download 120", "classify docs --model x"])
def test_wrong_command_lines(wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(ROOT)
    assert main(wrong.split()) == 2
    assert "--help" in capsys.readouterr().err


def pixels(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture.astype(int)


def test_classify_reports_allowed_classes_only(signs: Path, capsys: Any) -> None:
    command = ["classify", str(signs / "stop.png"), "--model", "demo"]
    assert main([*command, "--class-allow", "stop", "--class-allow", "yield", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["results"]
    assert [result["class_id"] for result in told["results"]] == ["stop", "yield"]
    assert main([*command, "--class-deny", "stpo"]) == 1
    assert "no class 'stpo': did you mean 'stop'?" in capsys.readouterr().err


def test_classify_names_every_picture(signs: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["classify", str(signs), "--model", "demo", "--top-k", "2"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["model"]).name == "demo.onnx"
    for picture in told["results"]:
        assert picture["results"][0]["class_id"] == Path(picture["path"]).stem
        assert LABELS[picture["results"][0]["index"]] == Path(picture["path"]).stem
        assert len(picture["results"]) == 2
    assert main([*command, "--save", str(tmp_path / "out")]) == 0
    assert "%  roundabout" in capsys.readouterr().out
    for name in ("stop.png", "yield.jpg", "more/roundabout.jpg"):
        assert pixels(tmp_path / "out" / name).shape == (240, 320, 3)
    difference = pixels(signs / "stop.png") - pixels(tmp_path / "out" / "stop.png")
    changed = np.abs(difference).max(-1) > 100
    assert changed[:60].any()  # the text
    assert not changed[100:].any()


def test_classify_a_video(video: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["classify", str(video), "--model", "demo", "--json", "--save", str(tmp_path)]) == 0
    answers = json.loads(capsys.readouterr().out)["results"]
    assert [answer["frame"] for answer in answers] == list(range(8))
    film = sequence(1, 320, 240, frames_per_scene=4)
    truth = [next(film)[0] for _ in range(8)]
    assert [answer["results"][0]["class_id"] for answer in answers] == truth
    assert len(list(pictures(find([tmp_path / "film.mp4"])))) == 8


def test_a_broken_picture_costs_itself_alone(signs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.png").write_bytes((signs / "stop.png").read_bytes()[:1000])
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes((signs / "stop.png").read_bytes())
    assert main(["classify", str(tmp_path), "--model", "demo", "--json"]) == 1
    told = capsys.readouterr()
    results = json.loads(told.out)["results"]
    assert [(Path(each["path"]).name, "error" in each) for each in results] == [
        ("a.png", True),
        ("b.jpg", True),
        ("c.png", False),
    ]
    assert "a.png" in told.err
    assert "b.jpg" in told.err


def test_the_board_answers_like_onnx(
    board: Emulator, signs: Path, tmp_path: Path, capsys: Any
) -> None:
    """Two backends on pictures without labels: the device computes the demo model."""
    backend, lock = OnnxBackend(share() / "models" / "demo.onnx"), threading.Lock()
    inside = backend.open_slot()

    def real_logits(nv12: np.ndarray) -> np.ndarray:
        with lock:
            inside.nv12[...] = nv12
            return inside.infer()

    board.compute(real_logits)
    compiled = write_model(tmp_path / "demo.bin", classes=len(LABELS))
    labels = str(share() / "labels" / "demo.txt")
    arguments = ["--model", "demo", "--backend", "onnx", "--labels", labels, "--json"]
    against = ["--against", str(compiled), "--against-backend", "bpu"]
    assert main(["eval", str(signs), *arguments, *against]) == 0
    report = json.loads(capsys.readouterr().out)
    assert ["libdnn" in model["backend"] for model in report["results"]] == [False, True]
    assert report["agreement"] == {"pictures": 3, "same_top1": 3}
    on_board = ["--model", str(compiled), "--labels", labels]
    assert main(["classify", str(signs / "stop.png"), *on_board, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "libdnn" in told["backend"]
    assert told["results"][0]["results"][0]["class_id"] == "stop"


@pytest.mark.parametrize(
    ("path", "message"),
    [("absent", "does not exist"), ("empty", "holds no pictures"), ("film.mp4", "is not a video")],
)
def test_paths_without_pictures(path: str, message: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "film.mp4").write_bytes(b"no film")
    assert main(["classify", str(tmp_path / path), "--model", "demo"]) == 1
    assert message in capsys.readouterr().err


def test_errors_are_one_line(store: Path) -> None:
    ended = repghost(
        *("classify", "docs/demo.png", "--model", "150", "--backend", "onnx"),
        REPGHOST_MODEL_URL="http://127.0.0.1:9",
        REPGHOST_HOME=str(store),
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("repghost: ")
    assert "repghost export 150" in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:s3cret@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live"),
        ("rtsp://admin:p@ss@127.0.0.1:9/live@1", "rtsp://127.0.0.1:9/live@1"),
        ("http://127.0.0.1:9/v.cgi?user=a&pwd=s3cret", "http://127.0.0.1:9/v.cgi?user=a&pwd=***"),
        (
            "rtsp://127.0.0.1:9/user=a&password=x&ch=1",
            "rtsp://127.0.0.1:9/user=a&password=***&ch=1",
        ),
        ("https://b.s3.com/d?X-Amz-Signature=1f&x=2", "https://b.s3.com/d?X-Amz-Signature=***&x=2"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str, capsys: Any) -> None:
    assert without_passwords(f"'{url}': gone") == f"'{shown}': gone"
    assert str(SourceError(f"'{url}' is gone")) == f"'{shown}' is gone"
    assert json.loads(without_passwords(json.dumps({"a": url, "b": 1}))) == {"a": shown, "b": 1}
    assert "s3cret" not in without_passwords(str(Path(url)))  # with one slash
    if url.startswith("rtsp"):
        assert main(["classify", url, "--model", "demo"]) == 1
        assert f"'{shown}' cannot be opened" in capsys.readouterr().err


def test_all_commands_resize_as_the_model_file_says(tmp_path: Path, capsys: Any) -> None:
    own = tmp_path / "own.onnx"
    save(copy_with_metadata(load(share() / "models" / "demo.onnx"), {"resize": "crop"}), own)
    (tmp_path / "set" / "stop").mkdir(parents=True)
    sign = render("stop", np.random.default_rng(3), 320, 240)
    cv2.imwrite(str(tmp_path / "set" / "stop" / "0.png"), sign)
    sign_bag(tmp_path / "drive", frames=2)
    for command in (["classify", "set"], ["eval", "set"], ["replay", "drive"]):
        line = [command[0], str(tmp_path / command[1]), "--model"]
        for model, options, said in (
            (str(own), [], "resize: crop (from the model file)"),
            ("demo", [], "resize: stretch (default)"),
            (str(own), ["--resize", "letterbox"], "resize: letterbox\n"),
        ):
            assert main([*line, model, *options]) == 0
            told = capsys.readouterr()
            assert said in f"{told.out}{told.err}"
        assert main([*line, str(own), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["resize"] == "crop"


def test_labels_lists_the_classes(capsys: Any) -> None:
    assert main(["labels", "demo"]) == 0
    assert tuple(capsys.readouterr().out.splitlines()) == LABELS
    assert main(["labels", "demo", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[1] == {"index": 1, "class_id": LABELS[1]}


def test_pictures_are_saved_below_their_folders(tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / name / "0.png"), np.full((64, 64, 3), 90, np.uint8))
    command = ["classify", str(tmp_path / "in"), "--model-path", "demo", "--json"]
    assert main([*command, "--save", str(tmp_path / "out"), "--roi", "0,0,32,32"]) == 0
    saved = [row["saved"] for row in json.loads(capsys.readouterr().out)["results"]]
    assert saved == [str(tmp_path / "out" / name / "0.png") for name in ("a", "b")]
    assert all(cv2.imread(path).shape == (32, 32, 3) for path in saved)


def test_info_tells_labels_and_preprocessing(tmp_path: Path, capsys: Any) -> None:
    path = str(write_color_model(tmp_path / "m.onnx"))
    model = onnx.load(path)
    recorded = {"labels": '["red", "green", "blue"]', "mean": "0", "scale": "0.01"}
    onnx.helper.set_model_props(model, recorded)
    onnx.save(model, path)
    assert main(["info", path, "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)["results"]
    assert (about["labels"], about["mean"], about["scale"]) == (3, "0", "0.01")


def test_what_is_typed_wrongly_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(ROOT)
    assert main([]) == 0
    assert "COMMAND" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"repghost_ros {__version__}"
    for line, told in {
        "clasify x": "did you mean 'classify'?",
        "classify docs --model dem": "did you mean 'demo'?",
        "download 15": "did you mean '150'?",
        "replay x --min-agreement 0.9": "--min-agreement",
        "replay x --max-drift 0.9": "--max-drift",
    }.items():
        assert main(line.split()) == 2
        assert told in capsys.readouterr().err
    for line, told in {
        "classify x --top-k none": "argument --top-k: 'none' is not a whole number",
        "replay x --min-agreement 2": "argument --min-agreement: '2' is not a number from 0 to 1",
        "replay x --roi 1,b": "argument --roi: '1,b' is not X,Y,W,H",
        "bench --seconds x": "argument --seconds: 'x' is not a number above zero",
        "classify x --mean 1,2": "argument --mean: '1,2' is not one number, or three",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(line.split())
        (said,) = capsys.readouterr().err.splitlines()
        assert told in said
        assert said.endswith(f"see repghost {line.split()[0]} --help")
    assert main(["classify", str(ROOT / "docs"), "--model", "absent.onnx"]) == 1
    assert "check --model" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["garbage", "ftp://x", "http://"])
def test_an_archive_that_is_none(
    url: str, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("REPGHOST_MODEL_URL", url)
    assert main(["download", "150", "--format", "bin"]) == 1
    assert "REPGHOST_MODEL_URL must begin with" in capsys.readouterr().err
    assert main(["doctor", "--json"]) == 1
    findings = {f["subject"]: f for f in json.loads(capsys.readouterr().out)["results"]}
    assert findings["archive"]["status"] == "problem"


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, capsys: Any) -> None:
    """/dev/full, as a folder's file system that is full would answer."""
    full = tmp_path / "bench.csv"
    full.with_name(".bench.partial.csv").symlink_to("/dev/full")
    assert main(["bench", "--model", "demo", "--seconds", "0.1", "--csv", str(full)]) == 1
    assert f"'{full}' cannot be written: No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_command_answers_in_one_envelope(
    signs: Path, store: Path, tmp_path: Path, capsys: Any
) -> None:
    bag = str(sign_bag(tmp_path / "bag", 4))
    lines = {
        "models": [],
        "classify": [str(signs), "--model", "demo"],
        "replay": [bag, "--model", "demo"],
        "bench": ["--model", "demo", "--seconds", "0.1", "--threads", "1"],
        "eval": [str(signs), "--model", "demo", "--against-backend", "onnx"],
        "export": ["demo", "--fold-preprocess", "--out", str(tmp_path / "folded.onnx")],
        "signs": [str(tmp_path / "drawn"), "--size", "64x64"],
        "doctor": [],
        "completion": ["bash"],
    }
    for command, arguments in lines.items():
        assert main([command, *arguments, "--json"]) == 0, command
        told = json.loads(capsys.readouterr().out)
        assert (told["schema"], told["command"]) == (SCHEMA, command)
        assert isinstance(told["results"], list), command
        assert told["results"], command


def test_what_fails_is_in_the_json(signs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes((signs / "stop.png").read_bytes())
    assert main(["classify", str(tmp_path), "--model", "demo", "--json"]) == 1
    broken, good = json.loads(capsys.readouterr().out)["results"]
    assert "error" in broken
    assert good["results"][0]["class_id"] == "stop"


def test_a_reader_that_ends_early_is_no_error() -> None:
    command = f"{sys.executable} -m repghost_ros.cli models | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_originals_are_never_written_over(signs: Path, video: Path, tmp_path: Path) -> None:
    for path in (*signs.glob("*.*"), video):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "film.avi").rename(tmp_path / "film.mp4")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["classify", str(tmp_path), "--model", "demo", "--save", str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in before} == {
        "stop_1.png",
        "yield_1.jpg",
        "film_1.mp4",
    }


def test_links_are_followed_and_loops_are_not(signs: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(signs)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in find([tmp_path])] == ["roundabout.bmp", "stop.png", "yield.jpg"]


def test_a_broken_video_costs_itself_alone(signs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.mp4").touch()
    command = ["classify", str(tmp_path), str(signs / "stop.png"), "--model", "demo", "--json"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "broken.mp4" in told.err
    broken, whole = json.loads(told.out)["results"]
    assert "broken.mp4" in broken["error"]
    assert Path(whole["path"]).name == "stop.png"


def test_a_film_behind_a_telephones_picture(signs: Path, tmp_path: Path) -> None:
    moving = tmp_path / "moving.jpg"
    moving.write_bytes((signs / "yield.jpg").read_bytes() + bytes(5000))
    assert main(["classify", str(moving), "--model", "demo"]) == 0
    moving.write_bytes((signs / "yield.jpg").read_bytes()[:4000])
    assert main(["classify", str(moving), "--model", "demo"]) == 1


def test_a_plot_that_cannot_be_drawn_is_refused_before_measuring(capsys: Any) -> None:
    assert main(["bench", "--model", "demo", "--seconds", "600", "--plot", "a.txt"]) == 2
    assert "must end in .png" in capsys.readouterr().err


COMPLETED = {
    "repghost cl": "classify",
    "repghost classify --model de": "demo",
    "repghost classify --model pict": "picture.png",
    "repghost classify pict": "picture.png",
    "repghost eval --resize le": "letterbox",
    "repghost eval --out fol": "folder",
}


def complete_bash(script: Path, line: str) -> str:
    program = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        "_shtab_repghost; echo ${COMPREPLY[@]}"
    )
    made = subprocess.run(
        ["bash", "-c", program], cwd=script.parent, capture_output=True, text=True
    )
    return made.stdout


def complete_fish(script: Path, line: str) -> str:
    program = f"source {script}; complete -C '{line}'"
    made = subprocess.run(
        ["fish", "-c", program], cwd=script.parent, capture_output=True, text=True
    )
    return made.stdout


def complete_zsh(script: Path, line: str) -> str:
    """As typed on a terminal: zsh completes in its line editor alone."""
    script.rename(script.with_name("_repghost"))
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(script.parent)
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        found = f"fpath=({script.parent} $fpath); autoload -U compinit; compinit -u -D"
        os.write(terminal, f"PS1=; {found}; repghost() {{ :; }}; echo rea''dy\n".encode())
        read_until(terminal, "ready")
        os.write(terminal, f"{line}\t; echo do''ne\n".encode())
        return read_until(terminal, "done").rpartition("repghost")[2]
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def read_until(terminal: int, mark: str) -> str:
    text = ""
    while mark not in text:
        text += os.read(terminal, 4096).decode(errors="replace")
    return text


@pytest.mark.parametrize("line", COMPLETED)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, line: str, tmp_path: Path, capsys: Any) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "picture.png").touch()
    (tmp_path / "folder").mkdir()
    told = globals()[f"complete_{shell}"](script, line)
    assert COMPLETED[line] in re.split(r"[\s/\x1b]+", told), told


def test_a_turned_picture_is_turned_and_said(tmp_path: Path, capsys: Any) -> None:
    upright = render(LABELS[0], np.random.default_rng(1), 240, 320)
    lying = cv2.imencode(".jpg", cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE))
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = lying[1].tobytes()
    exif = b"\xff\xe1" + (8 + len(tiff)).to_bytes(2, "big") + b"Exif\0\0" + tiff
    picture = tmp_path / "turned.jpg"
    picture.write_bytes(data[:2] + exif + data[2:])
    assert main(["classify", str(picture), "--model", "demo", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["results"]
    assert shown["note"] == "turned as its EXIF orientation 6 says"
    assert shown["results"][0]["class_id"] == LABELS[0]
    assert main(["classify", str(picture), "--model", "demo"]) == 0
    assert "turned as its EXIF orientation 6 says" in capsys.readouterr().out


def test_doctor(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    assert main(["doctor", "--json"]) == 0
    findings = {found["subject"]: found for found in json.loads(capsys.readouterr().out)["results"]}
    assert findings["backend auto"]["detail"].startswith("onnx")
    assert findings["ROS"]["status"] == ("ok" if find_spec("rclpy") else "note")
    assert "apt install hobot-dnn" in findings["BPU: libdnn"]["detail"]
    assert str(store) in findings["store"]["detail"]
    assert findings["JPEG decoder"]["status"] == ("ok" if turbojpeg.library() else "note")


def test_doctor_names_the_decoder_and_how_to_get_a_better_one(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(turbojpeg, "library", lambda: None)
    main(["doctor", "--json"])
    findings = {found["subject"]: found for found in json.loads(capsys.readouterr().out)["results"]}
    assert findings["JPEG decoder"]["status"] == "note"
    assert "apt install libturbojpeg" in findings["JPEG decoder"]["advice"]


def test_doctor_says_whether_the_helper_is_loaded_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def finding() -> dict[str, str]:
        main(["doctor", "--json"])
        results = json.loads(capsys.readouterr().out)["results"]
        (found,) = (each for each in results if each["subject"] == "compiled helper")
        return found

    monkeypatch.setenv("REPGHOST_NATIVE", "1")
    monkeypatch.setattr(native, "library", lambda: ctypes.CDLL(None))
    assert finding()["status"] == "ok"
    monkeypatch.setattr(native, "library", lambda: None)
    missing = finding()
    assert missing["status"] == "note"
    assert "install gcc" in missing["advice"]
    monkeypatch.setenv("REPGHOST_NATIVE", "0")
    off = finding()
    assert off["status"] == "note"
    assert "REPGHOST_NATIVE=0" in off["detail"]
    assert not off["advice"]


@pytest.mark.parametrize(
    ("segment", "status"), [(16 << 20, "ok"), (64 << 20, "problem")], ids=["small", "large"]
)
@pytest.mark.skipif(find_spec("rclpy") is None, reason="it is looked at where ROS is")
def test_doctor_knows_what_shared_memory_a_container_has(
    segment: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ours = (share() / "config" / "fastdds_images.xml").read_text()
    assert ours.count(str(16 << 20)) == 1
    profile = tmp_path / "profile.xml"
    profile.write_text(ours.replace(str(16 << 20), str(segment)))
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(profile))
    usage = shutil.disk_usage(tmp_path)._replace(total=64 << 20)  # Docker's
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    main(["doctor", "--json"])
    found = {each["subject"]: each for each in json.loads(capsys.readouterr().out)["results"]}
    assert found["Fast DDS profile"]["status"] == status
    if status == "problem":
        assert "64 MB a process" in found["Fast DDS profile"]["detail"]
        assert "--shm-size" in found["Fast DDS profile"]["advice"]


@pytest.mark.skipif(find_spec("rclpy") is None, reason="it is looked at where ROS is")
def test_doctor_does_not_ask_for_fast_dds_where_another_middleware_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/absent.xml")
    main(["doctor", "--json"])
    found = {each["subject"]: each for each in json.loads(capsys.readouterr().out)["results"]}
    assert "Fast DDS profile" not in found
    assert (found["middleware"]["status"], found["middleware"]["detail"]) == (
        "ok",
        "rmw_cyclonedds_cpp",
    )


def test_doctor_on_the_board(library: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("REPGHOST_LIBDNN", str(library))
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "bpu, through libdnn" in told
    assert re.search(r"BPU: libdnn +\d+\.\d+\.\d+\n", told)


def test_doctor_names_problems_and_what_to_do(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("rclpy")
    store.mkdir()
    (store / MODELS["100"].file_name("onnx")).write_text("<html>not found</html>")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/absent.xml")
    monkeypatch.setitem(sys.modules, "vision_msgs", None)
    assert main(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["results"]
    problems = {found["subject"] for found in findings if found["status"] == "problem"}
    assert problems == {"ROS", "model 100", "Fast DDS profile"}
    assert all(found["advice"] for found in findings if found["status"] == "problem")
