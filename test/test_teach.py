# SPDX-License-Identifier: Apache-2.0
"""Own classes on drawn signs: what is taught, measured, refused, and written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros import open_model
from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.cli import main
from repghost_ros.engine.results import UNKNOWN_INDEX, Reporting
from repghost_ros.errors import (
    BackendError,
    ConversionError,
    DependencyError,
    SourceError,
    StoreError,
)
from repghost_ros.files import sha256
from repghost_ros.graphs.graph import load, save
from repghost_ros.graphs.head import copy_with_metadata, cut, with_head
from repghost_ros.paths import share
from repghost_ros.sources.signs import render
from repghost_ros.teach.collected import append
from repghost_ros.teach.features import AS_IS, Augmented, features
from repghost_ros.teach.finetuning import _images
from repghost_ros.teach.labeled import folds, read_labeled
from repghost_ros.teach.logistic import fit
from repghost_ros.teach.measures import UNKNOWN, Curve, answers, fit_threshold, wilson
from repghost_ros.teach.teaching import read_trunk
from repghost_ros.vision.view import View
from repghost_ros.zoo.model_file import read_model_file
from repghost_ros.zoo.own import NOTHING, Own, digest, sidecar, write_own
from repghost_ros.zoo.record import IMAGENET
from repghost_ros.zoo.store import ModelStore, check_own_name, is_known

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
toys = pytest.importorskip("helpers.toys")
DEMO = share() / "models" / "demo.onnx"
SIGNS = ("stop", "yield", "no entry")


def sign_pictures(folder: Path, count: int, seed: int, labels: tuple[str, ...] = SIGNS) -> Path:
    for index, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            picture = render(label, np.random.default_rng([seed, index, number]), 200, 160)
            cv2.imwrite(str(folder / label / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sign_pictures(tmp_path_factory.mktemp("signs"), 12, 1)


def teach(*arguments: object) -> int:
    return main(["teach", *map(str, arguments)])


@pytest.fixture(scope="module")
def own(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.onnx"
    report = path.with_suffix(".html")
    assert teach(signs, "--model", DEMO, "--out", path, "--report", report) == 0
    return path


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in load(path).metadata_props}


def test_the_model_knows_the_classes(own: Path, tmp_path: Path) -> None:
    others = sign_pictures(tmp_path / "others", 6, 2)
    known = metadata(own)
    right = 0
    with open_model("", model_path=str(own)) as model:
        assert model.labels == tuple(sorted(SIGNS))
        for label in SIGNS:
            for path in (others / label).iterdir():
                picture = cv2.imread(str(path))
                assert picture is not None
                right += model.classify(picture)[0].class_id == label
    assert right >= 15
    assert known["resize"] in ("stretch", "crop")
    assert 0 <= float(known["unknown_below"]) < 1


def test_the_model_names_what_it_was_trained_with(own: Path, signs: Path) -> None:
    trained = metadata(own)["trained_pictures"].splitlines()
    labeled = read_labeled(signs)
    digests = {each.digest for each in labeled.pictures}
    assert set(trained) < digests  # a part is held out
    assert len(trained) == pytest.approx(0.8 * len(digests), abs=3)


def test_the_page_shows_what_was_measured(own: Path) -> None:
    page = own.with_suffix(".html").read_text()
    for text in ("held-out pictures", "false alarms", "Confusion matrix", f"SHA-256 {sha256(own)}"):
        assert text in page


def test_the_report_counts(signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own.onnx"
    assert teach(signs, "--model", DEMO, "--out", out, "--resize", "stretch", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [each["class"] for each in result["classes"]] == sorted(SIGNS)
    measured = result["held_out"]["pictures"] + result["cross_validated"]["pictures"]
    assert measured == 36 == sum(map(sum, result["confusion"]["rows"]))
    low, high = result["held_out"]["interval"]
    assert low < result["held_out"]["accuracy"] <= high
    assert result["resize"] == "stretch"
    assert result["accuracy_by_resize"] == {}


def test_a_wrong_label_is_found(
    signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "signs"
    shutil.copytree(signs, folder)
    moved = folder / "stop" / "moved.png"
    (folder / "yield" / "3.png").rename(moved)
    assert teach(folder, "--model", DEMO, "--out", tmp_path / "own.onnx", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert {"label": "stop", "answer": "yield"}.items() <= next(
        each for each in result["doubts"] if each["path"] == str(moved)
    ).items()


def test_nothing_is_unknown(
    signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "signs"
    shutil.copytree(signs, folder)
    (folder / NOTHING).mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        noise = random.integers(0, 255, (12, 16, 3), np.uint8)
        cv2.imwrite(str(folder / NOTHING / f"{number}.png"), cv2.resize(noise, (200, 160)))
    assert teach(folder, "--model", DEMO, "--out", tmp_path / "own.onnx", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["cross_validated"]["nothing"] + result["held_out"]["nothing"] == 12
    assert result["cross_validated"]["false_alarms"] <= 1


@pytest.mark.parametrize("kind", ["gemm", "matmul", "matmul_add", "conv"])
def test_a_head_is_cut_off_and_put_back(kind: str) -> None:
    """The same layer as a new head gives the same logits."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = random.normal(size=(7, 4)).astype(np.float32)
    bias = random.normal(size=7).astype(np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 6, 6])
    target = helper.make_tensor_value_info("logits_of_old", TensorProto.FLOAT, [1, 7])
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["pooled"])]
    values = {"w": weights, "b": bias}
    if kind == "conv":
        values["w"] = weights[:, :, None, None]
        nodes += [
            helper.make_node("Conv", ["pooled", "w", "b"], ["maps"]),
            helper.make_node("Flatten", ["maps"], ["logits_of_old"]),
        ]
    else:
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
        if kind == "gemm":
            nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], ["logits_of_old"], transB=1))
        else:
            values["w"] = weights.T.copy()
            made = "logits_of_old" if kind == "matmul" else "product"
            nodes.append(helper.make_node("MatMul", ["flat", "w"], [made]))
            if kind == "matmul_add":
                nodes.append(helper.make_node("Add", ["b", "product"], ["logits_of_old"]))
    initializers = [numpy_helper.from_array(v, name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "small", [image], [target], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    trunk = cut(model)
    assert trunk.features == 4
    again = with_head(trunk, weights, np.zeros(7) if kind == "matmul" else bias, {"labels": "a"})
    onnx.checker.check_model(again, full_check=True)
    picture = {"image": random.normal(size=(1, 4, 6, 6)).astype(np.float32)}
    assert run(again, picture) == pytest.approx(run(model, picture), abs=1e-5)


def test_a_taught_model_is_a_base_too(own: Path) -> None:
    model = load(own)
    kernel = np.eye(4, cut(model).features, dtype=np.float32)
    again = with_head(cut(model), kernel, np.zeros(4), {"labels": "a\nb\nc\nd"})
    onnx.checker.check_model(again, full_check=True)
    assert cut(again).features == cut(model).features == cut(load(DEMO)).features


def run(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answer: np.ndarray = session.run(None, inputs)[0]
    return answer.ravel()


def test_the_head_is_at_the_minimum() -> None:
    """At the minimum, no weight can be moved for less loss."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 20)
    features = random.normal(size=(60, 8)) + 2 * np.eye(3, 8)[truth] + 5
    head = fit(features, truth, 3, 0.01)
    assert (head.logits(features).argmax(axis=1) == truth).mean() > 0.9
    scale = (features.std(axis=0) + 0.1 * features.std()) * np.sqrt(8)

    def loss(kernel: np.ndarray) -> float:
        logits = features @ kernel.T + head.bias + (head.kernel - kernel) @ features.mean(axis=0)
        surprise = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), truth]
        return float(surprise.mean() + 0.005 * ((kernel * scale) ** 2).sum())

    least = loss(head.kernel)
    for _ in range(20):
        moved = head.kernel + random.normal(size=head.kernel.shape) * 0.02 / scale
        assert loss(moved) > least - 1e-6


def test_rare_classes_weigh_as_much() -> None:
    random = np.random.default_rng(0)
    truth = np.array([0] * 200 + [1] * 10)
    features = random.normal(size=(210, 2)) + truth[:, None]
    answered = fit(features, truth, 2, 0.001).logits(features).argmax(axis=1)
    assert (answered[truth == 1] == 1).mean() > 0.5


def test_the_interval_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_threshold_keeps_false_alarms_few() -> None:
    truth = np.zeros(100, int)
    scores = np.stack([np.linspace(0.5, 1.0, 100), np.linspace(0.5, 0.0, 100)], axis=1)
    of_none = np.stack([np.linspace(0.5, 0.54, 100), np.linspace(0.5, 0.46, 100)], axis=1)
    threshold = fit_threshold(scores, truth, of_none, None)
    assert (of_none.max(axis=1) >= threshold).mean() <= 0.02
    assert (scores.max(axis=1) >= threshold).mean() >= 0.9


def test_nothing_and_low_scores_are_unknown() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    assert answers(scores, 2, 0.5).tolist() == [0, UNKNOWN, UNKNOWN]
    assert answers(scores, None, 0.0).tolist() == [0, 2, 0]


def test_the_curve_goes_on() -> None:
    curve = Curve((4.0, 8.0, 16.0), (0.6, 0.8, 0.9))
    assert curve.predicted(2.0) == pytest.approx(0.95)
    assert Curve((4.0, 8.0, 16.0), (0.9, 0.9, 0.8)).predicted(2.0) is None


def test_groups_stay_on_one_side() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 200)
    groups = random.integers(0, 30, 200)
    fold = folds(truth, groups, 5)
    for group in range(30):
        assert len(set(fold[groups == group].tolist())) == 1
    for number in range(5):
        assert set(truth[fold != number].tolist()) == {0, 1, 2, 3}


def test_a_class_of_one_recording_is_only_trained_with() -> None:
    truth, groups = np.repeat([0, 1], 6), np.array([0] * 6 + [1, 2, 3, 4, 5, 6])
    fold = folds(truth, groups, 5)
    assert set(fold[:6].tolist()) == {-1}
    assert set(fold[6:].tolist()) == {0, 1, 2, 3, 4}


@pytest.fixture
def folder(signs: Path, tmp_path: Path) -> Path:
    shutil.copytree(signs, tmp_path / "pictures")
    return tmp_path / "pictures"


def groups_of(folder: Path, label: str) -> list[int]:
    labeled = read_labeled(folder)
    return [each.group for each in labeled.pictures if labeled.labels[each.truth] == label]


def test_pictures_of_one_recording_are_one_group(folder: Path) -> None:
    for number in range(12):
        source = "monday.mcap" if number < 4 else "tuesday.mcap"
        append(folder, {"file": f"unlabeled/{number}.png", "source": source})
    for label in ("yield", "no entry"):
        for path in (folder / label).iterdir():
            path.rename(path.with_name(f"{label}{path.name}"))
    assert len(set(groups_of(folder, "stop"))) == 2


def test_names_with_numbers_are_one_group(folder: Path) -> None:
    for number in range(12):
        prefix = "kitchen" if number < 6 else "hall"
        (folder / "stop" / f"{number}.png").rename(folder / "stop" / f"{prefix}_{number:04}.png")
    assert len(set(groups_of(folder, "stop"))) == 2


def test_one_name_for_all_tells_nothing(folder: Path) -> None:
    for number in range(12):
        (folder / "stop" / f"{number}.png").rename(folder / "stop" / f"IMG_{number:04}.png")
    assert len(set(groups_of(folder, "stop"))) > 6


def test_near_duplicates_are_one_group(folder: Path) -> None:
    picture = cv2.imread(str(folder / "stop" / "0.png"))
    assert picture is not None
    for number in range(3):
        shifted = np.roll(picture, number, axis=1)
        cv2.imwrite(str(folder / "stop" / f"again{number}x.jpg"), shifted)
    labeled = read_labeled(folder)
    same = {each.group for each in labeled.pictures if each.path.name.startswith("again")}
    assert len(same) == 1


def test_classes_of_one_recording_are_not_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in SIGNS:
        for number, path in enumerate(sorted((folder / label).iterdir())):
            path.rename(path.with_name(f"{label}{number}.png"))
            append(folder, {"file": f"{label}{number}.png", "source": f"{label}.mcap"})
    assert teach(folder, "--model", DEMO, "--out", tmp_path / "own.onnx") == 0
    text = capsys.readouterr().out
    assert "not measured: stop" in text
    assert "held-out pictures: none" in text


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert teach(*arguments) == 1
    return capsys.readouterr().err


def test_one_class_is_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.rmtree(folder / "stop")
    shutil.rmtree(folder / "yield")
    out = tmp_path / "own.onnx"
    assert "at least two classes, and has only 'no entry'" in refused(
        capsys, folder, "--model", DEMO, "--out", out
    )
    assert not out.exists()


def test_few_pictures_are_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    for number in range(8):
        (folder / "stop" / f"{number}.png").unlink()
    out = tmp_path / "own.onnx"
    assert "at least 5 pictures, but 'stop' has 4" in refused(
        capsys, folder, "--model", DEMO, "--out", out
    )
    assert not out.exists()


def test_unreadable_pictures_are_named(folder: Path, tmp_path: Path, capsys: Any) -> None:
    broken = folder / "stop" / "0.png"
    broken.write_bytes(broken.read_bytes()[:500])
    assert teach(folder, "--model", DEMO, "--out", tmp_path / "own.onnx") == 0
    assert f"'{broken}' was left out" in capsys.readouterr().err
    for path in (folder / "stop").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"'stop' has 0 \(12 could not be read, such as"):
        read_labeled(folder)


def test_one_picture_in_two_classes_is_refused(folder: Path) -> None:
    shutil.copy(folder / "stop" / "3.png", folder / "yield" / "stop3.png")
    with pytest.raises(SourceError, match=r"the same picture is in two classes, .*3\.png.*stop3"):
        read_labeled(folder)


def test_a_missing_folder_is_named(tmp_path: Path, capsys: Any) -> None:
    missing = tmp_path / "missing"
    assert f"folder '{missing}' does not exist" in refused(
        capsys, missing, "--model", DEMO, "--out", tmp_path / "own.onnx"
    )


def test_a_base_without_a_linear_end_is_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    model = load(DEMO)
    trunk = cut(model)
    path = tmp_path / "trunk.onnx"
    # GlobalAveragePool and Flatten are its end.
    save(trunk.model, path)
    out = tmp_path / "own.onnx"
    error = refused(capsys, folder, "--model", path, "--out", out)
    assert "no linear layer at its end (it ends in Flatten)" in error
    assert not out.exists()
    with pytest.raises(ConversionError, match="it has no nodes"):
        cut(
            onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [model.graph.output[0]]))
        )


def test_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path, capsys: Any) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    out = tmp_path / "own.onnx"
    (tmp_path / ".own.partial.onnx").symlink_to("/dev/full")
    error = refused(capsys, folder, "--model", DEMO, "--out", out)
    assert f"'{out}' cannot be written" in error
    assert not out.exists()
    assert not list(tmp_path.glob("own.*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--out", "own.bin"), "must end in .onnx"),
        (("--out", "own.onnx", "--model", "99"), "'99' is not a model"),
        (("--out", "own.onnx", "--held-out", "0.9"), "leaves too few"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: tuple[str, ...], told: str, signs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teach(signs, *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.fixture
def small(tmp_path: Path) -> Path:
    small: Path = toys.write_small_network(tmp_path / "small.onnx")
    return small


def test_the_whole_network_is_trained_on(
    signs: Path,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted after an epoch, it goes on there, and ends with what it ends with otherwise."""
    pytest.importorskip("torch")
    from repghost_ros.teach.finetuning import _Training

    arguments = [signs, "--model", small, "--resize", "stretch", "--finetune", "--epochs", 2]
    whole, resumed = tmp_path / "whole.onnx", tmp_path / "resumed.onnx"
    assert teach(*arguments, "--out", whole, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    alone = result["head_alone"]
    assert result["held_out"]["pictures"] == alone["held_out"]["pictures"] > 0
    assert result["cross_validated"]["pictures"] < alone["cross_validated"]["pictures"]
    run = _Training.run

    def interrupted(self: Any, *given: Any) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        run(self, *given)

    monkeypatch.setattr(_Training, "run", interrupted)
    assert teach(*arguments, "--out", resumed) == 130
    assert not resumed.exists()
    assert resumed.with_suffix(".finetune.pt").is_file()
    monkeypatch.setattr(_Training, "run", run)
    assert teach(*arguments, "--out", resumed, "--report", tmp_path / "own.html") == 0
    told = capsys.readouterr()
    assert "going on after epoch 1" in told.err
    assert "the head alone, held-out pictures" in told.out
    assert "fine-tuned as a whole" in (tmp_path / "own.html").read_text()
    assert not resumed.with_suffix(".finetune.pt").exists()
    picture = render("stop", np.random.default_rng(3), 200, 160)
    with open_model("", model_path=str(whole)) as a, open_model("", model_path=str(resumed)) as b:
        best, again = a.classify(picture), b.classify(picture)
    assert again[0].score == pytest.approx(best[0].score, abs=1e-4)


def test_a_state_of_other_pictures_is_not_gone_on_with(
    folder: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    out = tmp_path / "own.onnx"
    state = out.with_suffix(".finetune.pt")
    arguments = [folder, "--model", small, "--resize", "stretch", "--finetune", "--epochs", 1]
    for content, told in (({"key": "other"}, "is of other pictures"), (None, "cannot be read")):
        if content is None:
            state.write_bytes(b"no state")
        else:
            torch.save(content, state)
        assert teach(*arguments, "--out", out) == 0
        assert told in capsys.readouterr().err


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    pytest.importorskip("torch")
    from repghost_ros.teach.trainable import Trainable

    model = load(DEMO)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softplus"
    with pytest.raises(ConversionError, match="has the operators Softplus: teach a head alone"):
        Trainable(cut(model))


def test_torch_computes_what_the_graph_does() -> None:
    torch = pytest.importorskip("torch")
    from repghost_ros.teach.trainable import Trainable

    trunk = cut(load(DEMO))
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    trainable = Trainable(trunk)
    with torch.no_grad():
        made = trainable(torch.from_numpy(image)).numpy().ravel()
    inputs = {trunk.model.graph.input[0].name: image}
    truth = run(trunk.model, inputs)
    assert made == pytest.approx(truth, abs=1e-4 * np.abs(truth).max())
    assert run(trainable.trunk().model, inputs) == pytest.approx(truth, abs=1e-6)


def test_pictures_are_cropped_as_the_bases_record_says(tmp_path: Path) -> None:
    """By teaching, by fine-tuning, and in the taught model."""
    picture = render("stop", np.random.default_rng(3), 320, 240)
    for name, pixels in (("whole.png", picture), ("square.png", picture[:, 40:280])):
        cv2.imwrite(str(tmp_path / name), pixels)
    whole, square = tmp_path / "whole.png", tmp_path / "square.png"
    trunk = read_trunk(DEMO, replace(IMAGENET, crop_share=1.0))
    assert (features(trunk, [whole], "crop") == features(trunk, [square], "stretch")).all()
    with _images(trunk, "crop") as cropped, _images(trunk, "stretch") as stretched:
        assert (cropped(Augmented(whole, AS_IS)) == stretched(Augmented(square, AS_IS))).all()
    save(with_head(trunk, np.zeros((2, trunk.features)), np.zeros(2), {}), tmp_path / "own.onnx")
    assert read_model_file(tmp_path / "own.onnx").own.crop_share == 1.0


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is here")
def test_fine_tuning_names_what_is_missing(signs: Path, tmp_path: Path, capsys: Any) -> None:
    error = refused(capsys, signs, "--model", DEMO, "--finetune", "--out", tmp_path / "own.onnx")
    assert "pip install torch" in error


def noise(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(small, (200, 160))


@pytest.fixture(scope="module")
def judging(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the model with a threshold that a lone class reaches rarely, and another resize policy."""
    path = tmp_path_factory.mktemp("judging") / "judging.onnx"
    save(copy_with_metadata(load(own), {"unknown_below": "0.9", "resize": "letterbox"}), path)
    return path


def test_an_unsure_answer_is_unknown(judging: Path) -> None:
    with open_model("", model_path=str(judging)) as model:
        assert model.resize == "letterbox"
        best = [model.classify(noise(n), reporting=Reporting(unknown="best"))[0] for n in range(20)]
        unsure = next(n for n, each in enumerate(best) if each.score < 0.9)
        (unknown,) = model.classify(noise(unsure))
        assert (unknown.class_id, unknown.index) == ("unknown", None)
        assert unknown.score == pytest.approx(1 - best[unsure].score)
        assert model.classify(noise(unsure), reporting=Reporting(unknown="none")) == ()
        sure = model.classify(render("stop", np.random.default_rng(3), 200, 160))
        assert sure[0].class_id == "stop"


def test_nothing_as_the_best_class_is_unknown() -> None:
    own = Own(("a", NOTHING, "b"), unknown_below=0.3)
    judged = Reporting().judged
    ((index, score),) = judged([(1, 0.5), (0, 0.4)], own)
    assert index == UNKNOWN_INDEX
    assert score == pytest.approx(0.6)
    assert list(judged([(0, 0.5), (1, 0.4)], own)) == [(0, 0.5), (1, 0.4)]
    assert list(judged([(1, 0.5)], Own(own.labels))) == [(1, 0.5)]  # not of a taught model


def test_the_view_is_the_models_own(judging: Path) -> None:
    picture = render("stop", np.random.default_rng(3), 320, 160)
    off = Reporting(unknown="best")
    with open_model("", model_path=str(judging)) as model:
        automatic = model.classify(picture, reporting=off)
        assert automatic == model.classify(picture, View(resize="letterbox"), off)
        assert automatic != model.classify(picture, View(resize="stretch"), off)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("unknown_below", "expected a number"),
        ("resize", "expected one of"),
        ("crop_share", "expected a number above 0"),
    ],
)
def test_damaged_metadata_is_refused(own: Path, tmp_path: Path, entry: str, told: str) -> None:
    path = tmp_path / "own.onnx"
    save(copy_with_metadata(load(own), {entry: "7"}), path)
    with pytest.raises(BackendError, match=told):
        open_model("", model_path=str(path))


def test_what_a_bin_cannot_record_is_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "own.bin"
    path.write_bytes(b"compiled")
    own = Own(("a", "b"), "crop", 0.25, "softmax", frozenset({"00ff"}), 0.95)
    write_own(own, path)
    assert read_model_file(path).own == own
    path.write_bytes(b"compiled anew")
    with pytest.raises(BackendError, match="describes another file"):
        read_model_file(path)
    sidecar(path).write_text("{")
    with pytest.raises(BackendError, match="cannot be read"):
        read_model_file(path)


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
@pytest.mark.parametrize(("unknown", "answer"), [("label", ["unknown"]), ("none", [])])
def test_the_node_publishes_unknown(judging: Path, unknown: str, answer: list[str]) -> None:
    from helpers.graph import Robot, image, running_node

    from repghost_ros.ros import messages

    with open_model("", model_path=str(judging)) as model:
        off = Reporting(unknown="best")
        unsure = next(
            n for n in range(20) if model.classify(noise(n), reporting=off)[0].score < 0.9
        )
    robot = Robot()
    try:
        with running_node(model_path=str(judging), unknown=unknown):
            published = robot.answer(robot.publisher(), image(noise(unsure), 1))
            assert [r.class_id for r in messages.results(published)] == answer
    finally:
        robot.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("REPGHOST_HOME", str(tmp_path / "store"))
    return ModelStore()


def test_an_own_model_has_a_name(own: Path, store: ModelStore, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    shutil.copy(own, copy)
    store.adopt("tools", "onnx", copy)
    with open_model("tools", backend="onnx") as model:
        assert model.labels == tuple(sorted(SIGNS))
    assert is_known("tools")
    assert not is_known("tool")
    with pytest.raises(StoreError, match=r"has no \.bin of 'tools'.*repghost quantize makes"):
        store.fetch("tools", "bin")
    with pytest.raises(StoreError, match="cannot be called '150'"):
        check_own_name("150")
    with pytest.raises(StoreError, match="cannot be called '../tools'"):
        store.adopt("../tools", "onnx", own)


def test_info_knows_the_classes(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(own), "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)["results"]
    assert about["names"] == sorted(SIGNS)
    assert about["unknown_below"] == pytest.approx(float(metadata(own)["unknown_below"]))


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_the_node_takes_an_own_name(own: Path, store: ModelStore, tmp_path: Path) -> None:
    from helpers.graph import Robot, image, running_node

    from repghost_ros.ros import messages

    copy = tmp_path / "copy.onnx"
    shutil.copy(own, copy)
    store.adopt("tools", "onnx", copy)
    robot = Robot()
    try:
        with running_node(model="tools", unknown="best"):
            stop = render("stop", np.random.default_rng(3), 200, 160)
            published = robot.answer(robot.publisher(), image(stop, 1))
            assert messages.results(published)[0].class_id == "stop"
    finally:
        robot.close()


@pytest.mark.toolchain
@pytest.mark.timeout(900)
def test_the_compiled_model_knows_the_classes(
    own: Path,
    signs: Path,
    store: ModelStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By quantize, the simulator, info and the store; the certificate is not of training pictures."""
    try:
        find_toolchain()
    except DependencyError as missing:
        pytest.skip(str(missing))
    out = tmp_path / "quantized"
    arguments = ["--calibration", str(signs), "--out", str(out), "--methods", "max"]
    arguments += ["--skip", "int8", "--store", "tools", "--min-agreement", "0.5", "--json"]
    assert main(["quantize", str(own), *arguments]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    trained = set(metadata(own)["trained_pictures"].split())
    held_out = [p for p in signs.rglob("*.png") if digest(p) not in trained]
    assert result["pictures"] == len(held_out) > 0
    stop = tmp_path / "stop.png"
    cv2.imwrite(str(stop), render("stop", np.random.default_rng(3), 200, 160))
    known = read_model_file(own).own
    for path in (result["makes"], result["stored"], result["quantized"]):
        described = read_model_file(Path(path)).own
        assert (described.labels, described.resize) == (known.labels, known.resize)
        assert described.unknown_below == known.unknown_below
        assert described.trained == known.trained
        assert main(["classify", str(stop), "--model", path, "--backend", "sim", "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["results"]
        assert answer["results"][0]["class_id"] == "stop"
    assert main(["info", "tools", "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)["results"]
    assert about["models"][0]["names"] == sorted(SIGNS)
