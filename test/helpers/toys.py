# SPDX-License-Identifier: Apache-2.0
"""ONNX models of a few numbers, whose answers can be told without running them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_classifier(
    path: Path,
    nodes: list[Any],
    weights: Mapping[str, np.ndarray],
    classes: int,
    labels: str = "",
    **saving: Any,
) -> Path:
    """Write nodes that make `y`, one score a class, of `x`, a picture of 64x64 pixels."""
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", 11)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=6)
    helper.set_model_props(model, {"labels": labels} if labels else {})
    path.unlink(missing_ok=True)
    onnx.save(model, path, **saving)
    return path


def write_color_model(path: Path, order: tuple[int, int, int] = (0, 1, 2), **saving: Any) -> Path:
    """Write a model whose classes are the colors red, green and blue, in this order."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = 20 * np.ascontiguousarray(np.eye(3)[:, list(order)])
    return write_classifier(path, nodes, {"w": weights}, 3, **saving)


def write_small_network(path: Path) -> Path:
    """Write a classifier with a convolution and random weights, which torch trains in a moment."""
    random = np.random.default_rng(0)
    weights = {
        "conv": random.normal(size=(24, 3, 8, 8)) / 14,
        "conv bias": random.normal(size=24),
        "gemm": random.normal(size=(24, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv", "conv bias"], ["a"], strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "gemm"], ["y"]),
    ]
    return write_classifier(path, nodes, weights, 5)
