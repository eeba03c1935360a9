# SPDX-License-Identifier: Apache-2.0
"""`repghost eval`: folders with known truth, real models, broken pictures, resuming."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.toys import write_color_model

from repghost_ros import open_model
from repghost_ros.backends.base import BackendOptions
from repghost_ros.cli import main
from repghost_ros.engine.model import ModelSpec
from repghost_ros.errors import SourceError
from repghost_ros.runs.evaluation import EvalProtocol, accuracy, predict
from repghost_ros.runs.identity import answers_key
from repghost_ros.runs.samples import Classes, find_samples, read_class_map, read_val_list
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.zoo.labels import imagenet_synsets, labels_for
from repghost_ros.zoo.onnx_graph import model_bytes, model_files

PER_CLASS = 3
EVAL = ("--model", "demo", "--resize", "stretch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signs in folders of their names; a twentieth of them is in a wrong one."""
    folder = tmp_path_factory.mktemp("signs")
    for index in range(PER_CLASS * len(LABELS)):
        label = LABELS[index % len(LABELS)]
        shown = "yield" if index in (0, len(LABELS)) else label
        picture = render(shown, np.random.default_rng([6, index]), 320, 240)
        path = folder / label.replace(" ", "_") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
    return folder


def test_counts_what_is_right_and_wrong(folder: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["eval", str(folder), *EVAL, "--out", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    pictures = PER_CLASS * len(LABELS)
    assert row["pictures"] == pictures
    # The two that lie in the wrong folder are wrong, the others nearly all right.
    assert 0.94 <= row["top1"] <= (pictures - 2) / pictures
    assert row["top5"] >= row["top1"]
    with (tmp_path / "per_class.csv").open() as file:
        classes = {line["class"]: line for line in csv.DictReader(file)}
    assert set(classes) == set(LABELS)
    assert all(line["pictures"] == str(PER_CLASS) for line in classes.values())
    assert float(classes["stop"]["demo top-1"]) <= 1 / PER_CLASS + 1e-4


def test_resumes_where_it_broke_off(folder: Path, tmp_path: Path) -> None:
    classifier = open_model("demo")
    samples = find_samples(folder, Classes(classifier.labels))
    whole = predict(classifier, samples, EvalProtocol("stretch"), folder=tmp_path)
    path = tmp_path / "predictions.csv"
    lines = path.read_text().splitlines(keepends=True)
    # The process died in the middle of a line.
    path.write_text("".join(lines[:21]) + lines[21][:30])
    made = []

    def counting(predictions: Any, total: int) -> Any:
        made.append(total)
        return predictions

    again = predict(
        classifier, samples, EvalProtocol("stretch"), folder=tmp_path, progress=counting
    )
    assert made == [len(samples) - 20]
    assert again == whole
    assert len(path.read_text().splitlines()) == len(lines)
    predict(classifier, samples, EvalProtocol("crop"), folder=tmp_path, progress=counting)
    assert made[1] == len(samples)  # another question is not answered from it
    (tmp_path / "predictions.csv").write_text("something,else\n")
    with pytest.raises(SourceError, match="choose another folder"):
        predict(classifier, samples, EvalProtocol("crop"), folder=tmp_path)
    classifier.close()


def write_colors(folder: Path, names: Sequence[str] = ("red", "green", "blue")) -> Path:
    """Write a picture of red, green and blue to folders of these names."""
    for name, color in zip(names, ((0, 0, 255), (0, 255, 0), (255, 0, 0))):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a.png"), np.full((64, 64, 3), color, np.uint8))
    return folder


class Colors:
    """`repghost eval` of a model of colors."""

    def __init__(self, folder: Path, capsys: Any) -> None:
        self._folder, self._capsys = folder, capsys
        self.model = folder / "model.onnx"
        write_color_model(self.model)
        write_colors(folder / "val")
        (folder / "labels.txt").write_text("red\ngreen\nblue\n")

    def top1(self, *options: str) -> float:
        command = ["eval", str(self._folder / "val"), "--model", str(self.model), *options]
        labels = ("--labels", str(self._folder / "labels.txt"), "--json")
        assert main([*command, *labels]) == 0
        return float(json.loads(self._capsys.readouterr().out)["results"][0]["top1"])


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["--channel-order", "bgr"], []),
        (["--mean", "0", "--scale=-0.01"], ["--mean", "0", "--scale", "0.01"]),
    ],
)
def test_other_options_are_not_answered_from_an_earlier_run(
    before: list[str], now: list[str], tmp_path: Path, capsys: Any
) -> None:
    colors, out = Colors(tmp_path, capsys), ("--out", str(tmp_path / "out"))
    assert colors.top1(*before, *out) < 1.0
    assert colors.top1(*now, *out) == 1.0


def test_every_option_of_a_model_is_part_of_the_key(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    spec = ModelSpec("", str(write_color_model(tmp_path / "m.onnx")), str(labels))
    with spec.open() as model:
        keys = {answers_key(model)}
        for option in fields(BackendOptions):
            other: dict[str, Any] = {option.name: "another value"}
            changed = replace(model.spec.options, **other)
            keys.add(answers_key(replace(model, spec=replace(spec, options=changed))))
    changeless = {"onnx_threads", "bpu_core", "bpu_priority", "timeout_s"}
    assert len(keys) == 1 + len(fields(BackendOptions)) - len(changeless)


@pytest.mark.parametrize("fleet", [(), ("--on", "local", "--workers", "1")])
def test_weights_beside_the_model_are_part_of_it(
    fleet: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    colors, out = Colors(tmp_path, capsys), ("--out", str(tmp_path / "out"))
    beside = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    top1 = []
    for order in ((0, 1, 2), (1, 2, 0)):
        (tmp_path / "model.onnx.data").unlink(missing_ok=True)
        write_color_model(colors.model, order, **beside)
        top1.append(colors.top1(*fleet, *out))
    assert top1 == [1.0, 0.0]
    files = model_files(colors.model)
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert model_bytes(colors.model) == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        (("001", "002", "003"), ("001", "002"), (0, 1)),
        (("001", "002", "003"), ("1", "3"), (0, 2)),
        (("1", "2", "3"), ("1", "2", "3"), (0, 1, 2)),
        (("1", "2", "3"), ("0", "1", "2"), (0, 1, 2)),
        (("07", "11", "13"), ("07", "11", "13"), (0, 1, 2)),
        (("07", "11", "13"), ("00", "01", "2"), (0, 1, 2)),
        (("a", "b", "c"), ("2", "a", "7"), (2, 0, None)),
        (("7up", "b", "c"), ("7_UP", "7up"), (None, 0)),
    ],
)
def test_numbers_are_labels_before_they_are_indices(
    labels: tuple[str, ...], names: tuple[str, ...], indices: tuple[int | None, ...]
) -> None:
    assert tuple(Classes(labels).indices(names).values()) == indices


def test_folders_of_other_names(tmp_path: Path, capsys: Any) -> None:
    colors = Colors(tmp_path, capsys)
    command = ["eval", str(tmp_path / "other"), "--model", str(colors.model)]
    command += ["--labels", str(tmp_path / "labels.txt"), "--json"]
    write_colors(tmp_path / "other", ("reds", "green", "sky"))
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "'reds' (nearest: 'red'), 'sky'; rename them" in said
    (tmp_path / "map.csv").write_text("\ufeff# ours,theirs\nreds,red\nsky, blue\n", "utf-8")
    assert main([*command, "--class-map", str(tmp_path / "map.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["top1"] == 1.0
    (tmp_path / "map.csv").write_text("reds\n")
    with pytest.raises(SourceError, match="'reds': expected FOLDER,CLASS"):
        read_class_map(tmp_path / "map.csv")


def test_another_picture_is_not_answered_from_an_earlier_run(tmp_path: Path, capsys: Any) -> None:
    out, pictures = tmp_path / "out", tmp_path / "set"
    shown = [render(label, np.random.default_rng(3), 320, 240) for label in ("stop", "yield")]
    top1 = []
    for picture in shown:
        (pictures / "stop").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / "stop" / "a\nb.png"), picture)  # such names are allowed
        assert main(["eval", str(pictures), *EVAL, "--out", str(out), "--json"]) == 0
        top1.append(json.loads(capsys.readouterr().out)["results"][0]["top1"])
    assert top1 == [1.0, 0.0]


def test_one_model_on_two_backends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["eval", str(folder), *EVAL]
    assert main([*command, "--against-backend", "onnx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in report["results"]] == ["demo", "demo on onnx"]
    assert main([*command, "--against", "demo"]) == 2


def test_two_models_in_one_run(folder: Path, tmp_path: Path, capsys: Any) -> None:
    folded = str(tmp_path / "folded.onnx")
    assert main(["export", "demo", "--fold-preprocess", "--out", folded]) == 0
    capsys.readouterr()
    assert main(["eval", str(folder), *EVAL, "--against", folded, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    one, other = report["results"]
    assert one["top1"] == other["top1"]
    assert report["agreement"] == {"pictures": one["pictures"], "same_top1": one["pictures"]}
    assert main(["eval", str(folder), *EVAL, "--against", folded]) == 0
    assert "same top-1: 51 of 51" in capsys.readouterr().out


def test_agreement_needs_no_labels(folder: Path, tmp_path: Path, capsys: Any) -> None:
    unlabelled = folder / "stop"
    folded = str(tmp_path / "folded.onnx")
    assert main(["export", "demo", "--fold-preprocess", "--out", folded]) == 0
    assert main(["eval", str(unlabelled), *EVAL, "--against", folded]) == 0
    out = capsys.readouterr().out
    assert "same top-1: 3 of 3" in out
    assert "top-5" not in out
    assert main(["eval", str(unlabelled), *EVAL]) == 2
    assert "unlabeled" in capsys.readouterr().err


def test_a_broken_picture_fails_alone(folder: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "stop").mkdir()
    good = next((folder / "stop").iterdir()).read_bytes()
    (tmp_path / "stop" / "good.png").write_bytes(good)
    (tmp_path / "stop" / "broken.png").write_bytes(good[:300])
    assert main(["eval", str(tmp_path), *EVAL, "--json"]) == 1
    told = capsys.readouterr()
    (row,) = json.loads(told.out)["results"]
    assert (row["pictures"], row["refused"], row["failed"]) == (1, 1, 0)
    assert "broken.png" in told.err


def test_val_list(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "val.txt"
    listed.write_text("stop/0.png 0\nno_entry/2.png no entry\n\nyield/1.png yield\n")
    samples = read_val_list(listed, folder, Classes(LABELS))
    assert [(s.path.name, s.truth) for s in samples] == [("0.png", 0), ("2.png", 2), ("1.png", 1)]
    listed.write_text("\ufeff# what is shown\nstop/0.png\t00\nyield/1.png,1\nmy stop/a.png stop\n")
    assert [s.truth for s in read_val_list(listed, folder, Classes(LABELS))] == [0, 1, 0]
    listed.write_text("stop/0.png 99\n")
    with pytest.raises(SourceError, match="line 1"):
        read_val_list(listed, folder, Classes(LABELS))
    listed.write_text("\n")
    with pytest.raises(SourceError, match="empty"):
        read_val_list(listed, folder, Classes(LABELS))
    with pytest.raises(SourceError, match="cannot be read"):
        read_val_list(tmp_path / "absent", folder, Classes(LABELS))


def test_imagenet_classes_go_by_synset_label_and_index() -> None:
    labels = labels_for("150", 1000)
    names = Classes(labels).indices(["n01440764", "tench", "Cardigan", "cardigan"])
    assert imagenet_synsets()[0] == "n01440764"
    assert names["n01440764"] == names["tench"] == 0
    assert Classes(labels).indices(["0", "1000"]) == {"0": 0, "1000": None}
    # A dog and a garment.
    assert (names["Cardigan"], names["cardigan"]) == (264, 474)


def test_folders_that_cannot_be_evaluated(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        find_samples(tmp_path / "absent", Classes(LABELS))
    with pytest.raises(SourceError, match="no images"):
        find_samples(tmp_path, Classes(LABELS))
    for name in ("stop", "unheard of"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    with pytest.raises(SourceError, match="'unheard of'"):
        find_samples(tmp_path, Classes(LABELS))


def test_accuracy_of_nothing_is_unknown() -> None:
    assert accuracy([]).share(0) is None


def test_hidden_folders_and_files_are_neither_classes_nor_pictures(tmp_path: Path) -> None:
    for name in (
        *("stop/a.png", "yield/a.png", ".ipynb_checkpoints/a.png", "__MACOSX/stop/a.png"),
        *("stop/.ipynb_checkpoints/a.png", "stop/._a.png", "yield/Thumbs.db", ".DS_Store"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    samples = find_samples(tmp_path, Classes(LABELS))
    assert [(each.path.relative_to(tmp_path).as_posix(), each.truth) for each in samples] == [
        ("stop/a.png", LABELS.index("stop")),
        ("yield/a.png", LABELS.index("yield")),
    ]
