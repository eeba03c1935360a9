# SPDX-License-Identifier: Apache-2.0
"""The head of an ONNX classifier: its last linear layer cut off, and another put in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, need
from repghost_ros.graphs.graph import attributes_of, constants, copy_of, remove_unused

FEATURES = "features"
"""The output of a model without its head: float (1, features)."""
LOGITS = "logits"
_FOLLOWS = {
    *("Identity", "Dropout", "Softmax", "LogSoftmax", "Sigmoid"),
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze"),
}
"""Operators that may follow the last linear layer; a new head has none of them."""


@dataclass(frozen=True)
class Trunk:
    """A classifier without its last linear layer."""

    model: Any
    """An onnx.ModelProto with the output `features`."""
    features: int
    """How many the last linear layer read."""


def cut(model: Any, name: str = "the model") -> Trunk:
    """Cut a classifier before its last linear layer.

    That is a Gemm, a MatMul with or without an Add, or a 1x1 Conv.

    Args:
        model: an onnx.ModelProto with one output; it is not changed.
        name: what errors call it.

    Raises:
        ConversionError: it ends in no such layer.
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    model = copy_of(model)
    graph = model.graph
    if len(graph.output) != 1:
        raise ConversionError(f"{name} has {len(graph.output)} outputs: a classifier has one")
    makers = {target: node for node in graph.node for target in node.output}
    weights = constants(graph)
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in _FOLLOWS:
        node = makers.get(node.input[0])
    if node is not None and node.op_type == "Add":  # the bias of a MatMul
        node = makers.get(next((name for name in node.input if name not in weights), ""))
        if node is not None and node.op_type != "MatMul":
            node = None
    width = None if node is None else _inputs(node, weights)
    if node is None or width is None:
        last = makers.get(graph.output[0].name)
        ends = f"it ends in {last.op_type}" if last is not None else "it has no nodes"
        raise ConversionError(
            f"{name} has no linear layer at its end ({ends}), so nothing can be taught to it: give "
            "a classifier whose last layer is a Gemm, a MatMul or a 1x1 Conv"
        )
    _keep(graph, node.input[0])
    if node.input[0] != FEATURES:  # as in a model that was taught before
        graph.node.append(onnx.helper.make_node("Flatten", [node.input[0]], [FEATURES], axis=1))
    _set_output(graph, FEATURES, width)
    return Trunk(model, width)


def with_head(
    trunk: Trunk, kernel: np.ndarray, bias: np.ndarray, metadata: Mapping[str, str]
) -> Any:
    """Put a new linear layer on a trunk: an onnx.ModelProto with the output `logits`.

    Args:
        trunk: it is not changed.
        kernel: float (classes, features).
        bias: float (classes,).
        metadata: entries to add to the trunk's or to replace there.

    Raises:
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    model = copy_with_metadata(trunk.model, metadata)
    graph = model.graph
    for part, value in (("kernel", kernel), ("bias", bias)):
        tensor = onnx.numpy_helper.from_array(value.astype(np.float32), f"{LOGITS}/{part}")
        graph.initializer.append(tensor)
    names = [FEATURES, f"{LOGITS}/kernel", f"{LOGITS}/bias"]
    graph.node.append(onnx.helper.make_node("Gemm", names, [LOGITS], transB=1))
    _set_output(graph, LOGITS, len(bias))
    return model


def copy_with_metadata(model: Any, entries: Mapping[str, str]) -> Any:
    """Return a copy of an onnx.ModelProto with entries added to its metadata, or replaced there.

    Raises:
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    model = copy_of(model)
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, known | dict(entries))
    return model


def _inputs(node: Any, weights: Mapping[str, np.ndarray]) -> int | None:
    """Count the features that a linear layer of one position reads; None for another layer."""
    if len(node.input) < 2 or node.input[0] in weights or node.input[1] not in weights:
        return None
    shape = weights[node.input[1]].shape
    if node.op_type == "Gemm":
        attributes = attributes_of(node)
        return None if attributes.get("transA") else shape[1 if attributes.get("transB") else 0]
    if node.op_type == "MatMul" and len(shape) == 2:
        return int(shape[0])
    is_pointwise = node.op_type == "Conv" and all(side == 1 for side in shape[2:])
    return int(shape[1]) if is_pointwise and attributes_of(node).get("group", 1) == 1 else None


def _keep(graph: Any, target: str) -> None:
    """Drop the nodes that do not lead to a tensor."""
    makers = {made: node for node in graph.node for made in node.output}
    wanted, needed = [target], set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted += _reads(makers[name]) if name in makers else []
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads(node: Any) -> Sequence[str]:
    """Return the tensors that a node reads, in its subgraphs too."""
    read = list(node.input)
    for attribute in node.attribute:
        for inner in [attribute.g, *attribute.graphs]:
            for inner_node in inner.node:
                read += _reads(inner_node)
    return read


def _set_output(graph: Any, name: str, width: int) -> None:
    """Make a tensor the only output.

    Raises:
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    del graph.output[:]
    kind = onnx.TensorProto.FLOAT
    graph.output.append(onnx.helper.make_tensor_value_info(name, kind, [1, width]))
    remove_unused(graph)
