# SPDX-License-Identifier: Apache-2.0
"""Find the operator that makes an ONNX model's output, without the onnx package.

An .onnx file is a protobuf message; only the names and operators of its nodes are read.
Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from pathlib import Path

from repghost_ros.zoo.protobuf import fields, mapped, message, text

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_OUTPUT = 7, 1, 12
_VALUE_NAME, _NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 1, 2, 4
_PASSES_ON = {
    *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "CastLike"),
    *("QuantizeLinear", "DequantizeLinear", "Dropout", "Clip"),
}
"""Operators that leave the values of their first input as they are, or nearly."""
_PROBABILITIES = {"Softmax", "QLinearSoftmax", "Sigmoid", "QLinearSigmoid", "HardSigmoid"}
Node = tuple[str, list[str]]
"""An operator and the names of its inputs."""


def gives_probabilities(path: Path) -> bool:
    """Whether the graph ends in a softmax or sigmoid, including decomposed ones.

    False if the file cannot be read; a LogSoftmax gives logits, because softmax undoes its logarithm.
    """
    try:
        outputs, nodes = _read(path)
    except (OSError, ValueError):
        return False
    name, node = _maker(nodes, outputs[0]) if outputs else ("", None)
    if node is None:
        return False
    operator, inputs = node
    if operator == "Exp":  # of a LogSoftmax
        inner = _maker(nodes, inputs[0])[1]
        return inner is not None and inner[0] == "LogSoftmax"
    if operator == "Div" and len(inputs) == 2:  # exp(x) / sum(exp(x))
        over, under = (_maker(nodes, each)[1] for each in inputs)
        return (
            over is not None and under is not None and (over[0], under[0]) == ("Exp", "ReduceSum")
        )
    return bool(name) and operator in _PROBABILITIES


def _maker(nodes: dict[str, Node], name: str) -> tuple[str, Node | None]:
    """The node that makes a value, looking through nodes that only pass it on."""
    for _ in nodes:
        node = nodes.get(name)
        if node is None or node[0] not in _PASSES_ON or not node[1]:
            return name, node
        name = node[1][0]
    return name, nodes.get(name)


def _read(path: Path) -> tuple[list[str], dict[str, Node]]:
    """Names of the graph's outputs, and the node of each value."""
    outputs: list[str] = []
    nodes: dict[str, Node] = {}
    for number, value in fields(mapped(path)):
        if number != _MODEL_GRAPH:
            continue
        for part, content in fields(message(value)):
            if part == _GRAPH_OUTPUT:
                outputs += _texts(message(content), _VALUE_NAME)
            elif part == _GRAPH_NODE:
                made = message(content)
                (operator,) = _texts(made, _NODE_OPERATOR)[:1] or [""]
                node = operator, _texts(made, _NODE_INPUT)
                nodes |= dict.fromkeys(_texts(made, _NODE_OUTPUT), node)
    return outputs, nodes


def _texts(content: memoryview, wanted: int) -> list[str]:
    return [text(value) for number, value in fields(content) if number == wanted]
