# SPDX-License-Identifier: Apache-2.0
"""The last activation of a classifier's ONNX graph: found, and cut off.

The BPU gives logits; a softmax would run on the CPU, and a sigmoid would leave nothing in the compiled
file that says so. Without it the reader of the logits applies the right one.
"""

from __future__ import annotations

from typing import Any, Literal

from repghost_ros.graphs.graph import copy_of, remove_unused

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
    if node is None or node.op_type not in _ACTIVATIONS:
        return model, ""
    activation = _ACTIVATIONS[node.op_type]
    made, logits = node.output[0], node.input[0]
    graph.node.remove(node)
    for other in graph.node:
        other.input[:] = [logits if name == made else name for name in other.input]
    if output.name == made:
        output.name = logits
    if activation == "sigmoid":
        _rename(graph, output.name, SIGMOID_LOGITS)
    remove_unused(graph)
    return cut, activation


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a tensor that is an output of the graph."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    graph.output[0].name = new
