# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalization: scale channels so that one scale fits a whole tensor.

An activation has one scale, so a channel of small values uses few of the 256 levels. A channel may be
divided by a number where it is made and multiplied by it where it is used: ReLU, pooling and
sums pass positive factors on (Nagel et al., arXiv 1906.04721, section 4.1). The ranges compared are
those of activations, because weights have a scale per output (Xiao et al., arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from repghost_ros.graphs.graph import attributes_of, copy_of
from repghost_ros.graphs.observation import observe
from repghost_ros.graphs.weighted import Weighted, weighted_nodes, write

_PASS_ON = {
    *("Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("GlobalMaxPool", "ReduceMean", "Flatten"),
}
"""Operators whose output scales with their input, channel by channel."""
_GATES = ("Sigmoid", "HardSigmoid")
_ROUNDS = 20


def equalize(model: Any, images: Iterable[np.ndarray]) -> Any:
    """Return the same function with rescaled weights, which quantizes better.

    Args:
        model: an onnx.ModelProto of float32 whose normalizations are fused; it is not changed.
        images: inputs of the model, to measure ranges on.

    Raises:
        ConversionError: the model cannot be run.
        DependencyError: onnx or ONNX Runtime is missing.

    """
    equal = copy_of(model)
    layers = weighted_nodes(equal.graph)
    groups = _groups(equal.graph, layers)
    seen = observe(equal, [layer.source for made, used in groups for layer in used], images)
    ranges = [np.max([seen[layer.source].largest for layer in used], axis=0) for _, used in groups]
    for _ in range(_ROUNDS):
        for (made, used), activation in zip(groups, ranges, strict=True):
            weight = np.max([_share(layer) for layer in used], axis=0)
            alive = (activation > 0) & (weight > 0)
            factor = np.ones_like(activation)
            factor[alive] = np.sqrt(activation[alive] / weight[alive])
            activation /= factor
            for layer in made:
                layer.kernel = layer.kernel / layer.of_outputs(factor)
                layer.bias = layer.bias / factor
            for layer in used:
                layer.kernel = layer.kernel * layer.of_inputs(factor)
    write(layers, equal.graph)
    return equal


def _share(layer: Weighted) -> np.ndarray:
    """Each input channel's largest weight, relative to its output's largest: (inputs,)."""
    sizes = np.abs(layer.kernel).reshape(*layer.kernel.shape[:2], -1).max(axis=2)
    largest = sizes.max(axis=1, keepdims=True)
    shares = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
    by_group: np.ndarray = shares.reshape(layer.group, -1, shares.shape[1]).max(axis=1)
    return by_group.reshape(-1)


def _groups(graph: Any, layers: list[Weighted]) -> list[tuple[list[Weighted], list[Weighted]]]:
    """Return the layers that make and those that use tensors that must be scaled together."""
    tensors = _Sets()
    fixed = {entry.name for entry in (*graph.input, *graph.output)}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    weighted = {layer.target for layer in layers}
    for node in graph.node:
        if node.output[0] not in weighted:
            changing = [name for name in node.input if name in makers or name in fixed]
            fixed.update(_join(node, changing, makers, tensors))
    closed = {tensors.first(name) for name in fixed}
    found: dict[str, tuple[list[Weighted], list[Weighted]]] = {}
    for layer in layers:
        for side, name in enumerate((layer.target, layer.source)):
            found.setdefault(tensors.first(name), ([], []))[side].append(layer)
    return [
        (made, used)
        for root, (made, used) in found.items()
        if root not in closed and made and used and _fit(made, used)
    ]


def _join(node: Any, changing: list[str], makers: dict[str, str], tensors: _Sets) -> list[str]:
    """Join the tensors that a node scales together; returns those that nothing may scale.

    Args:
        node: an onnx.NodeProto without weights.
        changing: its inputs that are not constant.
        makers: the operator that makes a tensor.
        tensors: joined so far.

    """
    target = node.output[0]
    if node.op_type in _PASS_ON and _keeps_channels(node):
        tensors.join(target, node.input[0])
    elif node.op_type == "Add" and len(changing) == 2:
        tensors.join(target, *changing)
    elif node.op_type == "Mul" and len(changing) == 2:
        gates = [name for name in changing if makers.get(name) in _GATES]
        tensors.join(target, *(name for name in changing if name not in gates))
        return gates or changing
    else:
        return [*node.input, *node.output]
    return []


class _Sets:
    """Disjoint sets of tensors, by name."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def first(self, name: str) -> str:
        """Return the name that stands for a tensor's set."""
        while name in self._parents:
            name = self._parents[name]
        return name

    def join(self, *names: str) -> None:
        """Make one set of the sets of several tensors."""
        root = self.first(names[0])
        for name in names[1:]:
            if self.first(name) != root:
                self._parents[self.first(name)] = root


def _fit(made: list[Weighted], used: list[Weighted]) -> bool:
    """Tell if all have the same channels: none is broadcast or flattened."""
    return len({*(layer.outputs for layer in made), *(layer.inputs for layer in used)}) == 1


def _keeps_channels(node: Any) -> bool:
    attributes = attributes_of(node)
    if node.op_type == "ReduceMean":
        return bool(attributes.get("axes")) and min(attributes["axes"]) >= 2
    return node.op_type != "Flatten" or attributes.get("axis", 1) == 1
