# SPDX-License-Identifier: Apache-2.0
"""The last activation of a classifier's ONNX graph: found, and cut off.

The BPU gives logits; a softmax would run on the CPU, and a sigmoid would leave nothing in the compiled
file that says so. Without it the reader of the logits applies the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from repghost_ros.graphs.graph import copy_of, names_used, remove_unused

LastActivation = Literal["", "softmax", "sigmoid"]
_ACTIVATIONS: dict[str, LastActivation] = {
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "Sigmoid": "sigmoid",
}
_PASS_ON = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout")
SIGMOID_LOGITS = "logits_before_sigmoid"
"""Name of the output of a graph whose sigmoid was cut off; compiled files keep it."""


def cut_activation(model: Any) -> tuple[Any, LastActivation]:
    """Return an onnx.ModelProto without its last activation, and what that was; empty: there is none.

    Args:
        model: with one output; it is not changed.

    """
    cut = copy_of(model)
    graph = cut.graph
    makers = {name: node for node in graph.node for name in node.output}
    output = graph.output[0]
    node = makers.get(output.name)
    while node is not None and node.op_type in _PASS_ON:
        node = makers.get(node.input[0])
    activation, parts = _activation(makers, node) if node is not None else ("", [])
    if not activation:
        return model, ""
    made, logits = parts[0].output[0], parts[-1].input[0]
    graph.node.remove(parts[0])
    for other in graph.node:
        other.input[:] = [logits if name == made else name for name in other.input]
    if output.name == made:
        output.name = logits
    for part in parts[1:]:
        if part.output[0] not in set(names_used(graph)):
            graph.node.remove(part)
    if activation == "sigmoid":
        _rename(graph, output.name, SIGMOID_LOGITS)
    remove_unused(graph)
    return cut, activation


def _activation(makers: Mapping[str, Any], node: Any) -> tuple[LastActivation, list[Any]]:
    """Return the activation that ends in a node, and its parts: the last first, then what feeds it."""
    if node.op_type in _ACTIVATIONS:
        return _ACTIVATIONS[node.op_type], [node]
    inputs: list[Any] = [makers.get(name) for name in node.input]
    operators = [maker.op_type for maker in inputs if maker is not None]
    if node.op_type == "Exp" and operators == ["LogSoftmax"]:
        return "softmax", [node, *inputs]
    if node.op_type == "Div" and operators == ["Exp", "ReduceSum"]:
        power, total = inputs
        if total.input[0] == node.input[0]:
            return "softmax", [node, total, power, *_shift(makers, power.input[0])]
    return "", []


def _shift(makers: Mapping[str, Any], tensor: str) -> list[Any]:
    """Return what subtracts the largest logit, which leaves a softmax as it is; empty: nothing does."""
    difference = makers.get(tensor)
    if difference is not None and difference.op_type == "Sub":
        largest = makers.get(difference.input[1])
        if largest is not None and largest.op_type == "ReduceMax":
            return [difference, largest] if largest.input[0] == difference.input[0] else []
    return []


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a tensor that is an output of the graph."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    graph.output[0].name = new
