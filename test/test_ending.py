# SPDX-License-Identifier: Apache-2.0
"""The last activation of a classifier: cut off before compiling, recorded, and applied by readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.compiled import compiled
from helpers.networks import ending_in

from repghost_ros import open_model
from repghost_ros.backends.base import BackendOptions
from repghost_ros.convert.compilation import check_compilable, without_activation
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import BackendError, ConversionError
from repghost_ros.graphs.ending import SIGMOID_LOGITS, cut_activation
from repghost_ros.graphs.graph import load
from repghost_ros.paths import share
from repghost_ros.zoo.model_file import read_model_file

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
DEMO = share() / "models" / "demo.onnx"
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)


def answer(model: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"data": IMAGE})[0]).reshape(-1)


@pytest.mark.parametrize(
    ("operators", "activation"),
    [
        (["Softmax"], "softmax"),
        (["Softmax", "Identity"], "softmax"),
        (["LogSoftmax"], "softmax"),
        (["LogSoftmax", "Exp"], "softmax"),
        (["Sigmoid"], "sigmoid"),
        (["Flatten", "Sigmoid", "Identity"], "sigmoid"),
    ],
)
def test_is_cut_off(operators: list[str], activation: str, tmp_path: Path) -> None:
    path = ending_in(tmp_path / "end.onnx", *operators)
    assert cut_activation(load(path))[1] == activation
    cut = without_activation(path, tmp_path)
    assert np.allclose(answer(onnx.load(cut)), answer(onnx.load(DEMO)), atol=1e-5)
    assert read_model_file(cut).has_sigmoid_logits == (activation == "sigmoid")
    onnx.checker.check_model(onnx.load(cut), full_check=True)


def decomposed_softmax(path: Path, *, shifted: bool) -> Path:
    """Write the demo model followed by the operators that a softmax may be exported as."""
    model = load(DEMO)
    logits = model.graph.output[0].name
    steps = [
        ("ReduceMax", [logits], "most"),
        ("Sub", [logits, "most"], "less"),
        ("Exp", ["less" if shifted else logits], "powers"),
        ("ReduceSum", ["powers"], "sum"),
        ("Div", ["powers", "sum"], "scores"),
    ]
    for operator, inputs, made in steps if shifted else steps[2:]:
        axes = {"axes": [1], "keepdims": 1} if operator.startswith("Reduce") else {}
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [made], **axes))
    model.graph.output[0].name = "scores"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("shifted", [True, False])
def test_a_decomposed_softmax_is_cut_off(shifted: bool, tmp_path: Path) -> None:
    path = decomposed_softmax(tmp_path / "end.onnx", shifted=shifted)
    assert answer(load(path)).sum() == pytest.approx(1)
    check_compilable(path)
    assert cut_activation(load(path))[1] == "softmax"
    cut = load(without_activation(path, tmp_path))
    assert np.allclose(answer(cut), answer(load(DEMO)), atol=1e-5)
    assert len(cut.graph.node) == len(load(DEMO).graph.node)


def test_a_quotient_that_is_no_softmax_stays(tmp_path: Path) -> None:
    model = load(decomposed_softmax(tmp_path / "end.onnx", shifted=True))
    model.graph.node[-2].input[0] = "less"  # the sum of something else
    assert cut_activation(model)[1] == ""


def test_an_activation_that_cannot_be_cut_off_is_refused(tmp_path: Path) -> None:
    path = ending_in(tmp_path / "end.onnx", "HardSigmoid")
    with pytest.raises(ConversionError, match="ends in an activation that cannot be cut off"):
        check_compilable(path)


def test_logits_stay_as_they_are(tmp_path: Path) -> None:
    assert without_activation(DEMO, tmp_path) == DEMO
    assert not list(tmp_path.iterdir())


def test_readers_apply_the_sigmoid(tmp_path: Path) -> None:
    whole = ending_in(tmp_path / "end.onnx", "Sigmoid")
    cut = without_activation(whole, tmp_path)
    picture = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    labels = str(share() / "labels" / "demo.txt")
    reporting = Reporting(top_k=17)
    answers = []
    for path in (whole, cut):
        with open_model(model_path=str(path), labels_path=labels) as model:
            answers.append(model.classify(picture, reporting=reporting))
    for one, other in zip(*answers, strict=True):
        assert (one.class_id, pytest.approx(one.score, abs=1e-5)) == (other.class_id, other.score)
    assert sum(result.score for result in answers[0]) > 1.01  # no softmax's
    options = BackendOptions(activation="softmax")  # the user's word counts more than the file's
    with open_model(model_path=str(cut), labels_path=labels, options=options) as model:
        scores = [result.score for result in model.classify(picture, reporting=reporting)]
    assert sum(scores) == pytest.approx(1.0)


def test_a_compiled_file_keeps_the_name_of_its_output(tmp_path: Path) -> None:
    path = compiled(tmp_path / "m.bin", output=SIGMOID_LOGITS)
    assert read_model_file(path).has_sigmoid_logits
    assert not read_model_file(compiled(tmp_path / "n.bin")).has_sigmoid_logits


def test_operators_on_the_cpu_are_named(tmp_path: Path) -> None:
    path = compiled(tmp_path / "m.bin", operators=("BPU", "Dequantize", "Softmax"))
    with pytest.raises(BackendError, match="runs Softmax on the CPU"):
        read_model_file(path).for_simulation()
