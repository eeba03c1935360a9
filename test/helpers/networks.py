# SPDX-License-Identifier: Apache-2.0
"""Networks of timm, where torch is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repghost_ros.paths import share
from repghost_ros.zoo.catalogue import MODELS


def ending_in(path: Path, *operators: str) -> Path:
    """Write the demo model followed by some operators."""
    onnx: Any = import_module("onnx")
    model = onnx.load(share() / "models" / "demo.onnx")
    tensor = model.graph.output[0].name
    for number, operator in enumerate(operators):
        made = f"end{number}"
        model.graph.node.append(onnx.helper.make_node(operator, [tensor], [made]))
        tensor = made
    model.graph.output[0].name = tensor
    onnx.save(model, path)
    return path


def split_by_softmax(path: Path) -> Path:
    """Write a classifier of three classes, 96x64 pictures, with a Softmax between two convolutions."""
    helper, rng = import_module("onnx").helper, np.random.default_rng(0)
    shapes = {"first": (16, 3, 3, 3), "second": (16, 16, 3, 3), "matrix": (3, 16)}
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], "conv1", strides=[4, 4]),
        helper.make_node("Softmax", ["a"], ["b"], "softmax", axis=1),
        helper.make_node("Conv", ["b", "second"], ["c"], "conv2", strides=[2, 2]),
    ]
    return _pooled(path, nodes, {name: rng.normal(size=shape) for name, shape in shapes.items()})


def beyond_eight_bits(path: Path) -> Path:
    """Write a classifier by the mean red, green or blue, which eight bits take from it.

    A fourth channel is two hundred times as large, and the activations are clipped, so that channels
    cannot be scaled alike.
    """
    helper = import_module("onnx").helper
    small = 1 / 200
    mixed = np.array([[1.5] * 3, *(small * np.eye(3))])
    weights = {
        "mix": np.tile(mixed[:, :, None, None] / 9, (1, 1, 3, 3)),
        "low": np.array(0.0),
        "high": np.array(6.0),
        "apart": np.array([1.0, *[1 / small] * 3])[:, None, None, None],
        "matrix": np.eye(3, 4, 1),
    }
    nodes = [
        helper.make_node("Conv", ["image", "mix"], ["a"], "conv1", strides=[2, 2]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"], "clip"),
        helper.make_node("Conv", ["b", "apart"], ["c"], "conv2", group=4),
    ]
    return _pooled(path, nodes, weights)


def _pooled(path: Path, nodes: list[Any], weights: dict[str, np.ndarray]) -> Path:
    """Write nodes that make `c` of `image`, followed by what makes three logits of it by `matrix`."""
    onnx: Any = import_module("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [
        helper.make_node("GlobalAveragePool", ["c"], ["d"], "pool"),
        helper.make_node("Flatten", ["d"], ["e"], "flatten"),
        helper.make_node("Gemm", ["e", "matrix"], ["logits"], "gemm", transB=1),
    ]
    graph = helper.make_graph(
        [*nodes, *ends],
        "small",
        [helper.make_tensor_value_info("image", kind, [1, 3, 64, 96])],
        [helper.make_tensor_value_info("logits", kind, [1, 3])],
        [onnx.numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def network(name: str) -> Any:
    """Make a network of timm with weights and statistics that make every branch matter."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from training.train_demo import import_timm

    torch.manual_seed(0)
    model = import_timm().create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        # Published weights have factors other than the initial 1e-5.
        gamma = getattr(module, "gamma", None)
        if isinstance(gamma, torch.nn.Parameter):
            torch.nn.init.uniform_(gamma, 0.1, 1.0)
    return model


def random_model(size: str, seed: int = 0) -> Any:
    """RepGhost of timm with weights and statistics that make every branch and norm matter."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from training.train_demo import import_timm

    torch.manual_seed(seed)
    model = import_timm().create_model(MODELS[size].timm).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model
