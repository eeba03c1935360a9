# SPDX-License-Identifier: Apache-2.0
"""ONNX models of one's own: what they end in, how they are fed, and what runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repghost_ros import open_model
from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.onnx import OnnxBackend, providers
from repghost_ros.cli import main
from repghost_ros.engine.results import Reporting
from repghost_ros.engine.threads import cores, threads_beside
from repghost_ros.errors import BackendError
from repghost_ros.zoo.model_file import read_model_file
from repghost_ros.zoo.record import IMAGENET

onnx = pytest.importorskip("onnx")
BGR = np.full((240, 320, 3), (20, 200, 90), np.uint8)
CLASSES = 1000
WEIGHTS = np.random.RandomState(0).randn(3, CLASSES).astype(np.float32) * 3


def nodes(*operators: Any) -> list[Any]:
    """Make a chain of nodes from `x` to `y` of names, or of names and attributes."""
    made, value = [], "x"
    for number, operator in enumerate(operators):
        name, attributes = (operator, {}) if isinstance(operator, str) else operator
        inputs = [value, *attributes.pop("more", [])] if attributes else [value]
        out = "y" if number == len(operators) - 1 else f"v{number}"
        made.append(onnx.helper.make_node(name, inputs, [out], **attributes))
        value = out
    return made


def write(
    path: Path,
    *ending: Any,
    shape: tuple[Any, ...] = (1, 3, 224, 224),
    kind: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a classifier whose logits are the mean color of its input times WEIGHTS."""
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    chain = nodes(
        ("Cast", {"to": 1}),
        ("ReduceMean", {"axes": axes, "keepdims": 0}),
        ("MatMul", {"more": ["w"]}),
        *ending,
    )
    weights = onnx.numpy_helper.from_array(WEIGHTS, "w")
    x = onnx.helper.make_tensor_value_info("x", kind, shape)
    y = onnx.helper.make_tensor_value_info("y", 1, None)
    graph = onnx.helper.make_graph(chain, "g", [x], [y], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


def scores(path: Path, **options: Any) -> dict[int, float]:
    with open_model("", model_path=str(path), options=BackendOptions(**options)) as model:
        return {result.index or 0: result.score for result in model.classify(BGR)}


# --- what a model ends in ------------------------------------------------------------------------

SAME_SCORES = {
    "Softmax": [("Softmax", {"axis": 1})],
    "LogSoftmax": [("LogSoftmax", {"axis": 1})],
    "Softmax, then its shape": [("Softmax", {"axis": 1}), "Identity", ("Flatten", {"axis": 1})],
    "Softmax, then a cast": [("Softmax", {"axis": 1}), ("Cast", {"to": 1})],
    "Exp of LogSoftmax": [("LogSoftmax", {"axis": 1}), "Exp"],
    "nothing": [],
    "Identity": ["Identity"],
}


@pytest.mark.parametrize("ending", SAME_SCORES.values(), ids=SAME_SCORES)
def test_never_a_softmax_of_a_softmax(tmp_path: Path, ending: list[Any]) -> None:
    plain = scores(write(tmp_path / "plain.onnx"))
    ended = scores(write(tmp_path / "ended.onnx", *ending))
    assert list(plain) == list(ended)
    np.testing.assert_allclose(list(ended.values()), list(plain.values()), atol=1e-5)
    assert max(plain.values()) > 0.5


def test_a_softmax_in_pieces_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.onnx")
    plain = scores(path)
    model = onnx.load(str(path))
    model.graph.node[-1].output[0] = "logits"
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Exp", ["logits"], ["e"]),
            make("ReduceSum", ["e"], ["s"], keepdims=1),
            make("Div", ["e", "s"], ["y"]),
        ]
    )
    onnx.save(model, str(path))
    assert read_model_file(path).onnx.ending == "softmax"
    assert scores(path) == pytest.approx(plain, abs=1e-5)


def test_a_sigmoid_is_not_flattened(tmp_path: Path) -> None:
    given = scores(write(tmp_path / "s.onnx", "Sigmoid"))
    assert min(given.values()) > 0.9  # each is a probability of its own


def _sigmoid_in_pieces(path: Path) -> Path:
    """End a model in 1 / (1 + exp(-x)), which its graph does not tell."""
    model = onnx.load(str(write(path)))
    model.graph.node[-1].output[0] = "logits"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "one"))
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Neg", ["logits"], ["n"]),
            make("Exp", ["n"], ["e"]),
            make("Add", ["one", "e"], ["a"]),
            make("Div", ["one", "a"], ["y"]),
        ]
    )
    onnx.save(model, str(path))
    return path


def test_independent_scores_stay_so_at_any_temperature(tmp_path: Path) -> None:
    given = []
    for path, activation in (
        (write(tmp_path / "logits.onnx"), "sigmoid"),
        (write(tmp_path / "sigmoid.onnx", "Sigmoid"), "auto"),
        (_sigmoid_in_pieces(tmp_path / "pieces.onnx"), "auto"),
    ):
        options = BackendOptions(activation=activation)  # type: ignore[arg-type]
        with open_model("", model_path=str(path), options=options) as model:
            assert model.activation == ("sigmoid" if activation == "sigmoid" else "independent")
            for temperature in (1.0, 2.0):
                reporting = Reporting(top_k=CLASSES, temperature=temperature)
                results = model.classify(BGR, reporting=reporting)
                assert len(results) == CLASSES
                given.append({result.class_id: result.score for result in results})
    plain, cool, *others = given
    assert sum(cool.values()) > 1.5
    known = [name for name, score in plain.items() if 0.01 < score < 0.99]  # others saturate
    assert known
    for name in known:
        odds = plain[name] / (1 - plain[name])
        assert cool[name] == pytest.approx(odds**0.5 / (1 + odds**0.5), abs=1e-4)
        wanted = (plain[name], cool[name]) * 2
        assert tuple(scores[name] for scores in others) == pytest.approx(wanted, abs=1e-4)


def test_one_output_is_a_score_of_its_own(tmp_path: Path) -> None:
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    (tmp_path / "labels.txt").write_text("fire\n")
    for name, ending in (("logit", []), ("sigmoid", [helper.make_node("Sigmoid", ["y"], ["s"])])):
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
            *ending,
        ]
        graph = helper.make_graph(
            nodes,
            "fire",
            [helper.make_tensor_value_info("x", tensor, [1, 3, 64, 64])],
            [helper.make_tensor_value_info(nodes[-1].output[0], tensor, [1, 1])],
            [onnx.numpy_helper.from_array(np.array([[2], [0], [-2]], np.float32), "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.save(model, tmp_path / f"{name}.onnx")
        path, labels = str(tmp_path / f"{name}.onnx"), str(tmp_path / "labels.txt")
        with open_model("", model_path=path, labels_path=labels) as opened:
            ((red,), (blue,)) = (
                opened.classify(np.full((64, 64, 3), color, np.uint8))
                for color in ((0, 0, 255), (255, 0, 0))
            )
        assert red.score > 0.9
        assert blue.score < 0.1
    # Its top-1 would always be right.
    (tmp_path / "set" / "fire").mkdir(parents=True)
    command = ["eval", str(tmp_path / "set"), "--model", path, "--labels", labels]
    assert main(command) == 2


def test_what_the_graph_does_not_tell_the_answers_do(tmp_path: Path) -> None:
    # A square over the sum of squares: no softmax, but probabilities.
    path = write(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    model.graph.node[-1].output[0] = "logits"
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Mul", ["logits", "logits"], ["q"]),
            make("ReduceSum", ["q"], ["s"], keepdims=1),
            make("Div", ["q", "s"], ["y"]),
        ]
    )
    onnx.save(model, str(path))
    assert read_model_file(path).onnx.ending == "unknown"
    with open_model("", model_path=str(path)) as opened:
        assert opened.activation == "none"
        (best, *_) = opened.classify(BGR)
    pixel = (BGR[0, 0, ::-1] - np.array(IMAGENET.mean)) * np.array(IMAGENET.scale)
    squares = (pixel @ WEIGHTS) ** 2
    # NV12 rounds the color.
    assert best.score == pytest.approx(squares.max() / squares.sum(), rel=0.05)


def test_activation_overrules(tmp_path: Path) -> None:
    path = write(tmp_path / "s.onnx", ("Softmax", {"axis": 1}))
    right = scores(path)
    assert scores(path, activation="none") == right
    flattened = scores(path, activation="softmax")
    assert max(flattened.values()) < 0.01
    logits = write(tmp_path / "l.onnx")
    with pytest.raises(BackendError, match="not probabilities.*set activation to softmax"):
        scores(logits, activation="none")


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_a_file_that_cannot_be_read_ends_in_nothing(tmp_path: Path, size: int) -> None:
    whole = write(tmp_path / "s.onnx", ("Softmax", {"axis": 1})).read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[:size])
    assert read_model_file(path).onnx.ending != "softmax"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    read_model_file(path)  # whatever it is, this does not raise


# --- preprocessing -------------------------------------------------------------------------------


def expected(pixels: np.ndarray, mean: Any, scale: Any) -> dict[int, float]:
    logits = ((pixels - np.asarray(mean)) * np.asarray(scale)) @ WEIGHTS
    exponentials = np.exp(logits - logits.max())
    best = np.argsort(-logits)[:5]
    return dict(zip(best.tolist(), (exponentials / exponentials.sum())[best].tolist(), strict=True))


RGB = np.array([90.0, 200.0, 20.0])
OWN: dict[str, tuple[dict[str, Any], dict[str, str], np.ndarray, Any, Any]] = {
    "ImageNet's": ({}, {}, RGB, IMAGENET.mean, IMAGENET.scale),
    "0 to 1": ({"mean": (0.0,), "scale": (1 / 255,)}, {}, RGB, 0, 1 / 255),
    "-1 to 1": ({"mean": (127.5,), "scale": (1 / 127.5,)}, {}, RGB, 127.5, 1 / 127.5),
    "0 to 1, by the metadata": ({}, {"mean": "0", "scale": "0.00392156862"}, RGB, 0, 1 / 255),
    "Caffe's BGR": (
        {"mean": (124.0, 117.0, 104.0), "scale": (1 / 128,), "channel_order": "bgr"},
        {},
        RGB[::-1],
        (104, 117, 124),
        1 / 128,
    ),
    "BGR by the metadata": (
        {},
        {"mean": "[124, 117, 104]", "scale": "0.0078125", "channel_order": "BGR"},
        RGB[::-1],
        (104, 117, 124),
        1 / 128,
    ),
}


@pytest.mark.parametrize(
    "shape", [(1, 3, 224, 224), (1, 224, 224, 3), ("N", 3, 227, 227), (1, 299, 299, 3)]
)
@pytest.mark.parametrize("kind", [1, 10], ids=["float", "float16"])
@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_models_are_fed_as_they_want(
    tmp_path: Path, shape: tuple[Any, ...], kind: int, own: Any
) -> None:
    options, metadata, pixels, mean, scale = own
    path = write(tmp_path / "m.onnx", shape=shape, kind=kind, metadata=metadata)
    given = scores(path, **options)
    wanted = expected(pixels, mean, scale)
    assert next(iter(given)) == next(iter(wanted))
    # A level of NV12's rounding changes a logit by a few hundredths.
    assert given[next(iter(given))] == pytest.approx(wanted[next(iter(wanted))], abs=0.1)


def test_uint8_pixels_are_given_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", shape=(1, 224, 224, 3), kind=2)
    backend = OnnxBackend(path)
    image = np.empty(backend.input_shape, backend.kind)
    rgb = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    backend.normalize(rgb, image)
    np.testing.assert_array_equal(image[0], rgb)


def test_odd_inputs_see_every_pixel_but_the_last_row_and_column(tmp_path: Path) -> None:
    backend = OnnxBackend(write(tmp_path / "m.onnx", shape=(1, 3, 227, 225)))
    assert (backend.width, backend.height) == (226, 228)
    image = np.empty(backend.input_shape, np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (228, 226, 3), dtype=np.uint8)
    backend.normalize(rgb, image)
    wanted = (rgb[:227, :225] - np.array(IMAGENET.mean)) * np.array(IMAGENET.scale)
    np.testing.assert_allclose(image[0].transpose(1, 2, 0), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "metadata", "reason"),
    [
        ({"mean": (1.0, 2.0)}, {}, "one number, or one each"),
        ({"scale": (float("nan"),)}, {}, "one number"),
        ({}, {"mean": "a, b"}, "metadata.*not a list of numbers: 'a, b'"),
        ({}, {"channel_order": "yuv"}, "rgb or bgr"),
        ({"onnx_providers": ("cuda2",)}, {}, "no 'cuda2', it offers .*cpu"),
    ],
)
def test_what_makes_no_sense_is_named(
    tmp_path: Path, options: dict[str, Any], metadata: dict[str, str], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        scores(write(tmp_path / "m.onnx", metadata=metadata), **options)


def test_a_model_of_the_bpu_has_its_own_preprocessing(model: Path, board: Any) -> None:
    with pytest.raises(BackendError, match="for ONNX models"):
        open_model("", model_path=str(model), options=BackendOptions(mean=(0.0,), scale=(1.0,)))


def test_names_that_other_exporters_write(tmp_path: Path) -> None:
    names = json.dumps({str(n): f"class {n}" for n in range(CLASSES)})
    path = write(tmp_path / "m.onnx", metadata={"names": names})
    with open_model("", model_path=str(path)) as opened:
        assert opened.labels[999] == "class 999"


# --- execution providers and threads -------------------------------------------------------------

GPU = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        (["auto"], GPU, GPU),
        (["auto"], ["AzureExecutionProvider", "CPUExecutionProvider"], GPU[2:]),
        (["cuda"], GPU, GPU[1:]),
        (["CUDAExecutionProvider"], GPU, GPU[1:]),
        (["cpu"], GPU, GPU[2:]),
        (["cpu", "cuda"], GPU, GPU[1:]),
        (["cuda", "tensorrt"], GPU, [GPU[1], GPU[0], GPU[2]]),
        (["cuda", "auto"], GPU, [GPU[1], GPU[0], GPU[2]]),
    ],
)
def test_providers(wanted: list[str], offered: list[str], chosen: list[str]) -> None:
    assert providers(wanted, offered) == chosen


def test_a_provider_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackendError, match="no 'openvino', it offers tensorrt, cuda, cpu: install"):
        providers(["openvino"], GPU)


def test_the_one_that_runs_is_said(tmp_path: Path) -> None:
    with open_model("", model_path=str(write(tmp_path / "m.onnx"))) as opened:
        assert opened.runtime.startswith("ONNX Runtime ")
        assert opened.runtime.endswith("/CPU")


def test_threads_and_workers_share_the_cores() -> None:
    assert threads_beside(1) == cores()
    assert threads_beside(cores()) == threads_beside(10 * cores()) == 1
    assert threads_beside(1, 1) == 1
    assert threads_beside(1, 1000) == cores()


def test_the_command_has_the_options(tmp_path: Path) -> None:
    import cv2

    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), BGR)
    path = write(tmp_path / "m.onnx", ("Softmax", {"axis": 1}))
    command = [sys.executable, "-m", "repghost_ros.cli", "classify", str(picture), "--json"]
    options = ["--mean", "0", "--scale", "0.00392156862", "--channel-order", "bgr"]
    out = subprocess.run(
        [*command, "--model", str(path), *options, "--onnx-providers", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(out.stdout)
    (best, *_) = report["results"][0]["results"]
    wanted = expected(RGB[::-1], 0, 1 / 255)
    assert best["score"] == pytest.approx(next(iter(wanted.values())), abs=0.02)
    assert report["backend"].endswith("/CPU")


# --- what exporters record -------------------------------------------------------------------------


def test_a_model_of_ultralytics_gets_pixels_from_0_to_1(tmp_path: Path) -> None:
    recorded = {"author": "Ultralytics", "task": "classify", "imgsz": "[224, 224]"}
    path = write(tmp_path / "best.onnx", metadata=recorded)
    told = scores(path, mean=(0.0,), scale=(1 / 255,))
    assert scores(path) == pytest.approx(told, abs=1e-6)
    assert scores(path, mean=(0.0,), scale=(1.0,)) != told  # options count more
    detector = write(tmp_path / "d.onnx", metadata=recorded | {"task": "detect"})
    with pytest.raises(BackendError, match="a model to detect, not a classifier"):
        scores(detector)


def test_a_deviation_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", metadata={"mean": "0.5", "std": "0.5"})
    with pytest.raises(BackendError, match="not for which range of pixels"):
        scores(path)
    assert scores(path, mean=(127.5,), scale=(1 / 127.5,))


def test_axes_without_size(tmp_path: Path) -> None:
    free = ("batch", "channels", "height", "width")
    with pytest.raises(BackendError, match="no fixed size"):
        scores(write(tmp_path / "free.onnx", shape=free))
    recorded = write(tmp_path / "sized.onnx", shape=free, metadata={"imgsz": "[64, 96]"})
    backend = OnnxBackend(recorded)
    assert (backend.height, backend.width) == (64, 96)


@pytest.mark.parametrize(("ir", "opset"), [(99, 13), (8, 99)])
def test_a_model_newer_than_onnx_runtime(ir: int, opset: int, tmp_path: Path) -> None:
    path = write(tmp_path / "new.onnx")
    model = onnx.load(str(path))
    model.ir_version, model.opset_import[0].version = ir, opset
    onnx.save(model, str(path))
    with pytest.raises(BackendError, match="newer than the installed ONNX Runtime") as raised:
        scores(path)
    assert "delete" not in str(raised.value)


def test_weights_left_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    beside = {"save_as_external_data": True, "location": "m.onnx.data", "size_threshold": 0}
    onnx.save(onnx.load(str(path)), str(path), **beside)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(BackendError, match=r"weights are missing: put .*m\.onnx\.data there"):
        scores(path)
