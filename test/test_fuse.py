# SPDX-License-Identifier: Apache-2.0
"""Re-parameterization of graphs: timm's RepGhosts of every size, and graphs made for one rule each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros.cli import main
from repghost_ros.errors import ConversionError, OutputError
from repghost_ros.graphs import fusing
from repghost_ros.graphs.fusing import fuse, fuse_file, is_fused
from repghost_ros.graphs.graph import is_quantized, load, opset
from repghost_ros.paths import share
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.zoo.catalogue import REPGHOST
from repghost_ros.zoo.record import IMAGENET

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
DEMO = share() / "models" / "demo.onnx"
RNG = np.random.default_rng(0)


def published(size: str, path: Path, *, norms: bool = False) -> Any:
    """Export a RepGhost of random weights as the zoo publishes its own: opset 11, branches not fused.

    With `norms` its normalizations are not folded into convolutions either. Returns its blocks.
    """
    from helpers.networks import random_model

    model = random_model(size)
    import torch

    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 224, 224),),
        str(path),
        opset_version=11,
        input_names=["data"],
        output_names=["output"],
        training=torch.onnx.TrainingMode.PRESERVE if norms else torch.onnx.TrainingMode.EVAL,
        do_constant_folding=not norms,
        dynamo=False,
    )
    return model.blocks


def signs(count: int = 4) -> list[np.ndarray]:
    """Road signs as the model sees them."""
    drawn = [render(label, RNG, 224, 224)[..., ::-1] for label in LABELS[:count]]
    images = [(rgb - np.array(IMAGENET.mean)) * np.array(IMAGENET.scale) for rgb in drawn]
    return [image.transpose(2, 0, 1)[None].astype(np.float32) for image in images]


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("size", REPGHOST)
def test_every_size(size: str, norms: bool, tmp_path: Path) -> None:
    blocks = published(size, tmp_path / "in.onnx", norms=norms)
    fused = fuse_file(tmp_path / "in.onnx", tmp_path / "out.onnx", signs())
    assert fused.inputs == 8
    assert 0 < fused.drift < 1e-5
    assert fused.parameters < fused.parameters_before
    before, after = load(tmp_path / "in.onnx"), load(fused.path)
    assert (is_fused(before), is_fused(after)) == (False, True)
    assert opset(after) == 11
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    assert "BatchNormalization" not in operators(after)
    # Of the additions the bottlenecks' shortcuts are left.
    assert operators(after).count("Add") == sum(len(stage) for stage in blocks[:-1])
    assert {path.name for path in tmp_path.iterdir()} == {"in.onnx", "out.onnx"}


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    """As exporters of IR version 3 and the model zoo write them."""
    published("100", tmp_path / "in.onnx")
    model = onnx.load(tmp_path / "in.onnx")
    for entry in model.graph.initializer:
        shape = onnx.helper.make_tensor_value_info(entry.name, entry.data_type, entry.dims)
        model.graph.input.append(shape)
    onnx.save(model, tmp_path / "old.onnx")
    fuse_file(tmp_path / "old.onnx", tmp_path / "out.onnx")
    assert [entry.name for entry in onnx.load(tmp_path / "out.onnx").graph.input] == ["data"]
    command = ["export", str(tmp_path / "old.onnx"), "--fold-preprocess"]
    assert main([*command, "--out", str(tmp_path / "folded.onnx")]) == 0


def test_what_is_fused_already_stays_as_it_is() -> None:
    model = onnx.load(DEMO)
    assert is_fused(model)
    assert fuse(model) == model


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def graph(nodes: Sequence[Any], channels: int, outputs: Sequence[str], **values: np.ndarray) -> Any:
    """Make a model of one 9x8 image `x`, with output shapes as inferred."""
    helper = onnx.helper
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, channels, 9, 8])
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    body = helper.make_graph(list(nodes), "g", [image], made, constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(operator, inputs.split(), [output], **attributes)


def norm(name: str, channels: int) -> dict[str, np.ndarray]:
    values = {f"{name}{i}": weights(channels) for i in range(3)}
    return {**values, f"{name}3": np.abs(weights(channels)) + 0.1}


def norm_node(source: str, name: str, output: str) -> Any:
    return node("BatchNormalization", f"{source} {name}0 {name}1 {name}2 {name}3", output)


def agrees(model: Any, channels: int) -> bool:
    """Assert that the fused model answers as the model does."""
    image = weights(1, channels, 9, 8)
    before, after = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": image})
        for each in (model, fuse(model))
    )
    return all(np.allclose(one, other, atol=1e-4) for one, other in zip(before, after, strict=True))


PAD = {"pads": [1, 1, 1, 1]}
FUSED: dict[str, tuple[list[Any], dict[str, tuple[int, ...]]]] = {
    "RepVGG: 3x3, 1x1 and identity": (
        [
            node("Conv", "x a", "1", **PAD),
            norm_node("1", "n", "2"),
            node("Conv", "x b", "3"),
            norm_node("3", "m", "4"),
            node("Add", "2 4", "5"),
            norm_node("x", "o", "6"),
            node("Add", "6 5", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
    ),
    "strided, bias": (
        [
            node("Conv", "x a c", "1", strides=[2, 2], **PAD),
            node("Conv", "x b", "2", strides=[2, 2]),
            node("Add", "2 1", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1), "c": (4,)},
    ),
    "the tensor itself": (
        [node("Conv", "x a", "1", group=4, **PAD), node("Add", "x 1", "y")],
        {"a": (4, 1, 3, 3)},
    ),
    "groups of two and four": (
        [
            node("Conv", "x a", "1", group=2, **PAD),
            node("Conv", "x b", "2", group=4),
            node("Add", "1 2", "y"),
        ],
        {"a": (8, 2, 3, 3), "b": (8, 1, 1, 1)},
    ),
    "uneven padding": (
        [
            node("Conv", "x a", "1", pads=[2, 0, 0, 2]),
            node("Conv", "x b", "2", pads=[0, 0, 0, 0]),
            node("Add", "1 2", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
    ),
    "dilated": (
        [
            node("Conv", "x a", "1", pads=[2, 2, 2, 2], dilations=[2, 2]),
            node("Conv", "x b", "2"),
            node("Add", "1 2", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
    ),
    "3x3, 1x3 and 3x1": (
        [
            node("Conv", "x a", "1", **PAD),
            node("Conv", "x b", "2", pads=[0, 1, 0, 1]),
            node("Add", "1 2", "3"),
            node("Conv", "x c", "4", pads=[1, 0, 1, 0]),
            node("Add", "3 4", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 3), "c": (4, 4, 3, 1)},
    ),
    "MobileOne: sums that begin and end with 0": (
        [
            norm_node("x", "n", "1"),
            node("Add", "zero 1", "2"),
            node("Conv", "x a", "3", **PAD),
            node("Add", "2 3", "4"),
            node("Add", "4 zero", "y"),
        ],
        {"a": (4, 4, 3, 3), "zero": ()},
    ),
    "FastViT: a scaled difference, and the tensor itself": (
        [
            node("Conv", "x a", "1", group=4, **PAD),
            norm_node("x", "n", "2"),
            node("Sub", "1 2", "3"),
            node("Mul", "scale 3", "4"),
            node("Add", "x 4", "y"),
        ],
        {"a": (4, 1, 3, 3), "scale": (4, 1, 1)},
    ),
    "the tensor itself, less a convolution": (
        [node("Conv", "x a b", "1", **PAD), node("Sub", "x 1", "y")],
        {"a": (4, 4, 3, 3), "b": (4,)},
    ),
    "divided, and a constant less it": (
        [
            node("Conv", "x a b", "1", **PAD),
            node("Div", "1 scale", "2"),
            node("Sub", "offset 2", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4,), "scale": (1, 4, 1, 1), "offset": (1, 4, 1, 1)},
    ),
}


@pytest.mark.parametrize("rule", FUSED)
def test_becomes_one_convolution(rule: str) -> None:
    nodes, shapes = FUSED[rule]
    values = {name: weights(*shape) for name, shape in shapes.items()}
    model = graph(nodes, 4, ["y"], **values, **norm("n", 4), **norm("m", 4), **norm("o", 4))
    assert operators(fuse(model)) == ["Conv"]
    assert len(fuse(model).graph.initializer) <= 2  # a bias only where it is not 0
    assert agrees(model, 4)


def test_weights_that_the_exporter_wrote_once() -> None:
    """Equal ones are passed on by Identity, such as the norms' of an untrained model."""
    nodes = [
        node("Identity", "n1", "shared"),
        node("Conv", "x a", "1", **PAD),
        node("BatchNormalization", "x n0 shared n2 n3", "2"),
        node("Add", "1 2", "y"),
    ]
    model = graph(nodes, 4, ["y"], a=weights(4, 4, 3, 3), **norm("n", 4))
    assert not is_fused(model)
    assert operators(fuse(model)) == ["Conv"]
    assert len(fuse(model).graph.initializer) == 2
    assert agrees(model, 4)


KEPT: dict[str, tuple[list[Any], dict[str, tuple[int, ...]], list[str]]] = {
    "branches of different tensors": (
        [
            node("Relu", "x", "r"),
            node("Conv", "x a", "1", **PAD),
            node("Conv", "r b", "2"),
            node("Add", "1 2", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
        ["y"],
    ),
    "one that is an output too": (
        [node("Conv", "x a", "1", **PAD), node("Conv", "x b", "2"), node("Add", "1 2", "y")],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
        ["y", "1"],
    ),
    "one that is used again": (
        [
            node("Conv", "x a", "1", **PAD),
            node("Conv", "x b", "2"),
            node("Add", "1 2", "3"),
            node("Mul", "3 1", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
        ["y"],
    ),
    "twice the same": (
        [node("Conv", "x a", "1"), node("Add", "1 1", "y")],
        {"a": (4, 4, 1, 1)},
        ["y"],
    ),
    "more work than two": (
        [
            node("Conv", "x a", "1", group=4, **PAD),
            node("Conv", "x b", "2"),
            node("Add", "1 2", "y"),
        ],
        {"a": (4, 1, 3, 3), "b": (4, 4, 1, 1)},
        ["y"],
    ),
    "other dilations": (
        [
            node("Conv", "x a", "1", pads=[2, 2, 2, 2], dilations=[2, 2]),
            node("Conv", "x b", "2", **PAD),
            node("Add", "1 2", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 3, 3)},
        ["y"],
    ),
    "padding by name": (
        [
            node("Conv", "x a", "1", auto_pad="SAME_UPPER"),
            node("Conv", "x b", "2"),
            node("Add", "1 2", "y"),
        ],
        {"a": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
        ["y"],
    ),
    "broadcast": (
        [node("Conv", "x a", "1"), node("Conv", "x b", "2"), node("Add", "1 2", "y")],
        {"a": (4, 4, 1, 1), "b": (1, 4, 1, 1)},
        ["y"],
    ),
    "kernels computed": (
        [
            node("Relu", "k", "a"),
            node("Conv", "x a", "1", **PAD),
            node("Conv", "x b", "2"),
            node("Add", "1 2", "y"),
        ],
        {"k": (4, 4, 3, 3), "b": (4, 4, 1, 1)},
        ["y"],
    ),
    "a factor for every column": (
        [node("Conv", "x a", "1", **PAD), node("Mul", "1 f", "y")],
        {"a": (4, 4, 3, 3), "f": (8,)},
        ["y"],
    ),
    "a constant divided by a convolution": (
        [node("Conv", "x a", "1", **PAD), node("Div", "f 1", "y")],
        {"a": (4, 4, 3, 3), "f": (4, 1, 1)},
        ["y"],
    ),
    "a convolution times another": (
        [node("Conv", "x a", "1"), node("Conv", "x b", "2"), node("Mul", "1 2", "y")],
        {"a": (4, 4, 1, 1), "b": (4, 4, 1, 1)},
        ["y"],
    ),
}


@pytest.mark.parametrize("rule", KEPT)
def test_stays_as_it_is(rule: str) -> None:
    nodes, shapes, outputs = KEPT[rule]
    model = graph(nodes, 4, outputs, **{name: weights(*shape) for name, shape in shapes.items()})
    assert is_fused(model)
    assert operators(fuse(model)) == operators(model)
    assert agrees(model, 4)


def test_two_averaged_heads_become_one() -> None:
    """As in RepViT: each a normalization and a matrix product."""
    nodes = [
        node("GlobalAveragePool", "x", "1"),
        node("Flatten", "1", "2"),
        norm_node("2", "n", "3"),
        node("Gemm", "3 a b", "4", transB=1),
        norm_node("2", "m", "5"),
        node("Gemm", "5 c", "6", alpha=0.5),
        node("Add", "4 6", "7"),
        node("Div", "7 two", "y"),
    ]
    values = {
        "a": weights(5, 4),
        "b": weights(5),
        "c": weights(4, 5),
        "two": np.full(1, 2, np.float32),
    }
    model = graph(nodes, 4, ["y"], **values, **norm("n", 4), **norm("m", 4))
    assert operators(fuse(model)) == ["GlobalAveragePool", "Flatten", "Gemm"]
    assert agrees(model, 4)


def test_normalizations_of_vectors_stay() -> None:
    nodes = [
        node("GlobalAveragePool", "x", "1"),
        node("Flatten", "1", "2"),
        norm_node("2", "n", "3"),
        norm_node("3", "m", "y"),
    ]
    model = graph(nodes, 4, ["y"], **norm("n", 4), **norm("m", 4))
    assert operators(fuse(model)) == operators(model)
    assert agrees(model, 4)


def test_metadata_and_source_are_kept(tmp_path: Path) -> None:
    nodes, shapes = FUSED["the tensor itself"]
    model = graph(nodes, 4, ["y"], **{name: weights(*shape) for name, shape in shapes.items()})
    onnx.helper.set_model_props(model, {"labels": "cup\nfork"})
    onnx.save(model, tmp_path / "in.onnx")
    fuse_file(tmp_path / "in.onnx", tmp_path / "in.onnx")
    written = load(tmp_path / "in.onnx")
    assert operators(written) == ["Conv"]
    assert written.metadata_props == model.metadata_props


def test_what_answers_differently_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, shapes = FUSED["strided, bias"]
    model = graph(nodes, 4, ["y"], **{name: weights(*shape) for name, shape in shapes.items()})
    onnx.save(model, tmp_path / "in.onnx")
    monkeypatch.setattr(fusing, "_regrouped", lambda kernel, *_: kernel * 1.001)
    with pytest.raises(ConversionError, match="not kept"):
        fuse_file(tmp_path / "in.onnx", tmp_path / "out.onnx")
    monkeypatch.setattr(fusing, "_regrouped", lambda kernel, *_: kernel * np.nan)
    with pytest.raises(ConversionError, match="by nan"):
        fuse_file(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_bad_models(tmp_path: Path) -> None:
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    with pytest.raises(ConversionError, match="does not exist"):
        fuse_file(path, out)
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(ConversionError, match="is not an ONNX model"):
        fuse_file(path, out)
    path.write_bytes(b"")
    with pytest.raises(ConversionError, match="holds no graph"):
        fuse_file(path, out)
    model = graph([node("Relu", "x", "y")], 4, ["y"])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(ConversionError, match="no fixed size: .*'height'"):
        fuse_file(path, out)
    assert not out.exists()


def test_already_quantized(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    quantization.quantize_dynamic(DEMO, tmp_path / "int8.onnx")
    caplog.clear()
    assert is_quantized(load(tmp_path / "int8.onnx"))
    assert not is_quantized(load(DEMO))
    with pytest.raises(ConversionError, match="already quantized"):
        fuse_file(tmp_path / "int8.onnx", tmp_path / "out.onnx")
    assert not caplog.records


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(OutputError, match=r"out\.onnx.*No space left"):
        fuse_file(DEMO, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published("100", tmp_path / "in.onnx")
    for number, label in enumerate(LABELS[:3]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), render(label, RNG, 300, 260))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    command = ["fuse", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]
    assert main([*command, "--pictures", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)["results"][0]
    assert (report["inputs"], report["nodes"]) == (7, 177)
    assert "broken.png" in said.err
    assert main([*command[:2], str(tmp_path / "out.bin")]) == 2
    (tmp_path / "out.onnx").rename(tmp_path / "in.onnx")
    capsys.readouterr()
    assert main(command) == 0
    assert "nothing to fuse" in capsys.readouterr().out
