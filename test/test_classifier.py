# SPDX-License-Identifier: Apache-2.0
"""The library's front: pictures in any form, their results, scores and features."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.pictures import sign_folder

import repghost_ros
from repghost_ros import (
    BackendOptions,
    Classifier,
    RepghostError,
    Reporting,
    Results,
    View,
    open_model,
)
from repghost_ros.errors import BackendError, FrameError, ParameterError, StoreError
from repghost_ros.paths import share
from repghost_ros.sources.pictures import PictureError, read_image
from repghost_ros.sources.signs import render
from repghost_ros.zoo.catalogue import MODELS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model() -> Iterator[Classifier]:
    with open_model("demo") as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sign_folder(tmp_path_factory.mktemp("signs"), seed=1, per_class=1)


@pytest.fixture(scope="module")
def sign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sign") / "sign.png"
    cv2.imwrite(str(path), render("stop", np.random.default_rng(0), 320, 240))
    return path


def forms(path: Path) -> dict[str, Any]:
    """Return the same picture in every form."""
    image = pytest.importorskip("PIL.Image")
    bgr = cv2.imread(str(path))
    return {
        "str": str(path),
        "bytes": path.read_bytes(),
        "BGR": bgr,
        "BGRA": cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA),
        "frame": read_image(path),
        "PIL file": image.open(path),
        "PIL RGB": image.fromarray(bgr[..., ::-1]),
        "PIL RGBA": image.open(path).convert("RGBA"),
    }


def test_every_form_of_a_picture_gets_the_same_results(model: Classifier, sign: Path) -> None:
    expected = model.classify(sign)
    assert expected.best.class_id == "stop"
    for form, picture in forms(sign).items():
        assert model.classify(picture) == expected, form
    for results in model.classify(forms(sign).values()):
        assert results == expected


def test_a_pil_image_is_turned_as_its_file_is(model: Classifier, sign: Path) -> None:
    image = pytest.importorskip("PIL.Image").open(sign)
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turn right
    written = io.BytesIO()
    image.save(written, "png", exif=exif)
    turned = pytest.importorskip("PIL.Image").open(written)
    assert model.classify(turned) == model.classify(written.getvalue()) != model.classify(sign)


@pytest.mark.parametrize(("kind", "mode"), [("uint16", "I;16"), ("int32", "I"), ("float32", "F")])
def test_a_pil_image_of_unknown_range_is_refused(
    model: Classifier, sign: Path, kind: str, mode: str
) -> None:
    gray = cv2.imread(str(sign), cv2.IMREAD_GRAYSCALE)
    image = pytest.importorskip("PIL.Image").fromarray(gray.astype(kind))
    with pytest.raises(FrameError, match=f"mode {mode}: convert it to 8 bits"):
        model.classify(image)


def test_results_are_a_tuple_of_results(model: Classifier, sign: Path) -> None:
    results = model.classify(sign, View(), Reporting(top_k=2))
    assert isinstance(results, tuple)
    assert len(results) == 2
    assert results[0] is results.best
    first, second = results
    assert first.score > second.score
    assert pickle.loads(pickle.dumps(results)) == results


def test_results_can_be_printed_and_written(model: Classifier, sign: Path) -> None:
    results = model.classify(sign, reporting=Reporting(top_k=1))
    score = results.best.score
    assert str(results) == f"{sign}\n  {score:7.2%}  stop"
    assert repr(results) == f"<Results of {sign}: {score:.1%} stop>"
    assert json.loads(json.dumps(results.to_dict())) == {
        "path": str(sign),
        "frame": None,
        "results": [{"class_id": "stop", "score": score, "index": results.best.index}],
    }


def test_results_draw_themselves_on_what_the_model_saw(model: Classifier, sign: Path) -> None:
    drawn = model.classify(sign, View(roi=(40, 20, 200, 220))).draw()
    original = cv2.imread(str(sign))[20:240, 40:240]
    assert drawn.shape == original.shape
    assert drawn.dtype == np.uint8
    changed = np.abs(drawn.astype(int) - original).max(axis=2) > 60
    assert changed[: changed.shape[0] // 2].any()  # there are letters on top
    assert not changed[-20:].any()  # and below it is the picture, its channels not swapped


def test_a_folder_is_classified_picture_by_picture(
    model: Classifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = Path.read_bytes

    def spied(path: Path) -> bytes:
        read.append(path)
        return original(path)

    many = sorted(folder.rglob("*.png")) * 20
    monkeypatch.setattr(Path, "read_bytes", spied)
    results = model.classify([folder, *many])
    assert read == []
    names = [next(results).picture.path.parent.name for _ in range(3)]
    assert names == sorted(path.name for path in folder.iterdir())[:3]
    assert len(read) < len(many) / 2
    for each in results:
        assert each.best.class_id == each.picture.path.parent.name
    assert len(read) == len(many) + len(list(folder.iterdir()))


def test_of_many_pictures_one_without_results_says_why(model: Classifier, sign: Path) -> None:
    given: list[Any] = [sign, "nowhere.png", b"no image", None, np.zeros((4, 4)), sign]
    one, *broken, other = model.classify(given)
    assert one == other
    assert one
    assert not one.error
    assert [bool(each) for each in broken] == [False] * 4
    assert broken[0].error == "'nowhere.png' does not exist"
    assert "'picture 2': its 8 bytes are not an image" in broken[1].error
    assert "there is no picture" in broken[2].error
    assert "float64" in broken[3].error
    assert broken[0].to_dict() == {
        "path": "nowhere.png",
        "frame": None,
        "error": "'nowhere.png' does not exist",
    }
    assert str(broken[0]) == "nowhere.png\n  'nowhere.png' does not exist"
    with pytest.raises(FrameError, match="does not exist"):
        _ = broken[0].best


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("nowhere.png", PictureError, "'nowhere.png' does not exist"),
        (".", PictureError, r"give \['.'\], a list"),
        ("drive.mp4", PictureError, r"give \['drive.mp4'\], a list"),
        (b"", FrameError, "it is empty"),
        (None, FrameError, "there is no picture"),
        (3, FrameError, "int"),
        (np.zeros((1, 3, 8, 8), np.uint8), FrameError, "one picture at a time"),
    ],
)
def test_what_is_no_picture_is_refused(
    model: Classifier, given: Any, error: type[RepghostError], message: str
) -> None:
    for ask in (model.classify, model.scores, model.features):
        with pytest.raises(error, match=message):
            ask(given)


def test_a_failure_of_the_device_is_raised(
    model: Classifier, sign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.backend, "session", None)
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        model.classify(sign)
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        list(model.classify([sign]))


def test_arguments_in_the_wrong_place_are_refused(model: Classifier, sign: Path) -> None:
    wrong: Any = Reporting(top_k=1)
    for ask in (model.classify, model.scores, model.features):
        with pytest.raises(ParameterError, match="view cannot be a Reporting: it is a View"):
            ask(sign, wrong)


def test_scores_are_those_of_all_classes(model: Classifier, sign: Path) -> None:
    scores = model.scores(sign)
    assert scores.shape == (17,)
    assert scores.sum() == pytest.approx(1)
    best = model.classify(sign).best
    assert model.labels[scores.argmax()] == best.class_id
    assert scores.max() == best.score
    several = model.scores([sign, cv2.imread(str(sign))])
    assert (several == scores).all()
    assert several.shape == (2, 17)
    assert model.scores([]).shape == (0, 17)
    assert model.scores(sign, temperature=5.0).max() < scores.max()
    with pytest.raises(FrameError, match="does not exist"):
        model.scores([sign, "nowhere.png"])


def test_features_are_what_the_last_layer_reads(model: Classifier, sign: Path) -> None:
    onnx = pytest.importorskip("onnx")
    features = model.features(sign)
    assert features.dtype == np.float32
    several = model.features([sign, cv2.imread(str(sign))[:, ::-1]])
    assert (several[0] == features).all()
    assert (several[1] != features).any()
    graph = onnx.load(share() / "models" / "demo.onnx").graph
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    last = next(node for node in reversed(graph.node) if node.op_type in ("Gemm", "MatMul", "Conv"))
    kernel, bias = (weights[name] for name in last.input[1:3])
    logits = kernel.reshape(17, -1) @ features + bias
    exponentials = np.exp(logits - logits.max())
    assert exponentials / exponentials.sum() == pytest.approx(model.scores(sign), abs=1e-5)


def test_features_of_a_compiled_model_are_refused(model: Classifier, sign: Path) -> None:
    compiled = Classifier("own", Path("own.bin"), model.labels, "full", model.backend)
    with pytest.raises(BackendError, match=r"'own.bin' was compiled.*open the ONNX model"):
        compiled.features(sign)


def test_a_closed_model_says_so(sign: Path) -> None:
    model = open_model()
    model.classify(sign)
    model.features(sign)
    model.close()
    model.close()
    for ask in (
        model.classify,
        model.scores,
        model.features,
        lambda path: list(model.classify([path])),
    ):
        with pytest.raises(BackendError, match="the model 'demo' is closed: open it again"):
            ask(sign)


def test_models_are_opened_by_name_number_or_file(tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes((share() / "models" / "demo.onnx").read_bytes())
    for opened in (open_model(own), open_model(str(own)), open_model(model_path=own)):
        with opened as model:
            assert model.path == own
            assert model.name == "own.onnx"
    with pytest.raises(StoreError, match="'nowhere.onnx' does not exist"):
        open_model("nowhere.onnx")
    with pytest.raises(StoreError, match="model '151' is unknown"):
        open_model(151)


def test_a_model_is_printed_in_one_line(model: Classifier) -> None:
    assert str(model) == repr(model) == f"<Classifier demo: 17 classes, 224x224, {model.runtime}>"


def test_the_package_lists_its_names() -> None:
    assert set(repghost_ros.__all__) <= set(dir(repghost_ros))
    for name in repghost_ros.__all__:
        assert getattr(repghost_ros, name) is not None
    assert repghost_ros.BackendOptions is BackendOptions
    assert repghost_ros.Results is Results


def test_help_says_what_may_be_given_and_what_may_go_wrong() -> None:
    text = open_model.__doc__ or ""
    arguments = ("model", "model_path", "labels_path", "backend", "options", "progress")
    for word in (*arguments, "BackendError", "StoreError", "LabelsError"):
        assert f"{word}: " in text


USERS_PROGRAM = """
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import repghost_ros
from repghost_ros import BackendOptions, Classifier, Reporting, Result, Results, View, open_model
from repghost_ros.runs.replay import replay
from repghost_ros.sources.bags import Bag


def best(model: Classifier, picture: Path) -> Result:
    return model.classify(picture, View(resize="crop"), reporting=Reporting(top_k=1)).best


with open_model(150, options=BackendOptions(onnx_threads=2)) as model:
    one: Results = model.classify("a.png")
    many: Iterator[Results] = model.classify(["signs", Path("b.png"), b"", np.zeros((2, 2), np.uint8)])
    for results in many:
        first: Result = results[0]
    scores: npt.NDArray[np.float64] = model.scores(["signs"])
    features: npt.NDArray[np.float32] = model.features(Path("a.png"))
    drawn: npt.NDArray[np.uint8] = one.draw()
    entry: dict[str, Any] = one.to_dict()
    with Bag(Path("drive")) as bag:
        print([answer.results for answer in replay(bag, "", model)])
    print(repghost_ros.__version__, best(model, Path("a.png")).score)
open_model(Path("own.onnx"), labels_path=Path("own.txt")).close()
"""


def check_types(path: Path, program: str) -> str:
    """Return what mypy --strict says of a user's program."""
    path.write_text(program)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--follow-imports=silent",
                "--config-file=",
            ),
            *("--cache-dir", str(path.parent / "cache"), path.name),
        ],
        cwd=path.parent,
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_a_users_program_has_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    assert "Success" in check_types(tmp_path / "users.py", USERS_PROGRAM)
    told = check_types(tmp_path / "wrong.py", "import repghost_ros\nrepghost_ros.open_model(1.5)\n")
    assert "wrong.py:2: error: Argument 1" in told


def test_the_crop_is_as_large_as_the_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """RepViT, for one, is evaluated on 95 % of the short side, RepGhost on 87.5 %."""
    record = MODELS["100"]
    whole = replace(record.preprocessing, crop_share=1.0)
    monkeypatch.setitem(MODELS, "demo", replace(record, preprocessing=whole))
    picture = render("stop", np.random.default_rng(3), 320, 240)
    with repghost_ros.open_model("demo", backend="onnx") as model:
        cropped = model.scores(picture, View(resize="crop"))
        square = model.scores(picture[:, 40:280], View(resize="stretch"))
        np.testing.assert_array_equal(cropped, square)
