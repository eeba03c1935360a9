# SPDX-License-Identifier: Apache-2.0
"""The weighted nodes of an ONNX graph, convolutions and matrix products, behind one interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from repghost_ros.errors import need
from repghost_ros.graphs.graph import attributes_of, constants, remove_unused


class Weighted:
    """A Conv or Gemm with constant weights.

    Attributes:
        source: the tensor that it reads.
        target: the tensor that it makes.
        kernel: float64 (outputs, inputs / group, ...).
        bias: float64 (outputs,).
        group: 1 for a Gemm.

    """

    def __init__(self, node: Any, weights: dict[str, np.ndarray]) -> None:
        attributes = attributes_of(node)
        self._node = node
        self.source, self.target = node.input[0], node.output[0]
        self.group: int = attributes.get("group", 1)
        # A Gemm without transB has its inputs first.
        self._transposed = node.op_type == "Gemm" and not attributes.get("transB")
        kernel = weights[node.input[1]].astype(np.float64)
        self.kernel: np.ndarray = kernel.T if self._transposed else kernel
        has_bias = len(node.input) > 2 and node.input[2]
        bias = weights[node.input[2]] if has_bias else np.zeros(len(self.kernel))
        self.bias: np.ndarray = bias.astype(np.float64)

    @property
    def inputs(self) -> int:
        """Channels of the source."""
        return self.kernel.shape[1] * self.group

    @property
    def outputs(self) -> int:
        """Channels of the target."""
        return len(self.kernel)

    def of_inputs(self, values: np.ndarray) -> np.ndarray:
        """Return (inputs,) values in the kernel's shape, one position: (outputs, inputs, ...)."""
        met = values.reshape(self.group, -1).repeat(self.outputs // self.group, axis=0)
        return met.reshape(*met.shape, *[1] * (self.kernel.ndim - 2))

    def of_outputs(self, values: np.ndarray) -> np.ndarray:
        """Return (outputs,) values in the kernel's number of dimensions: (outputs, 1, ...)."""
        return values.reshape(-1, *[1] * (self.kernel.ndim - 1))

    def write(self, graph: Any) -> None:
        """Store kernel and bias in the node's graph, as weights of this node only.

        Raises:
            DependencyError: onnx is missing.

        """
        onnx = need("onnx", "pip install onnx")
        kernel = self.kernel.T if self._transposed else self.kernel
        names = [f"{self.target}/{part}" for part in ("kernel", "bias")]
        for kept in [entry for entry in graph.initializer if entry.name in names]:
            graph.initializer.remove(kept)
        for name, value in zip(names, (kernel, self.bias), strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
        self._node.input[:] = [self.source, *names]


def weighted_nodes(graph: Any) -> list[Weighted]:
    """Return the weighted nodes of an onnx.GraphProto in its order; only plain Gemms."""
    weights = constants(graph)
    return [
        Weighted(node, weights)
        for node in graph.node
        if _is_plain(node) and all(name in weights for name in node.input[1:] if name)
    ]


def write(layers: Iterable[Weighted], graph: Any) -> None:
    """Store the layers of an onnx.GraphProto, and drop the weights that nothing reads any more."""
    for layer in layers:
        layer.write(graph)
    remove_unused(graph)


def _is_plain(node: Any) -> bool:
    """Tell if a node computes kernel * source + bias."""
    if node.op_type == "Conv":
        return True
    attributes = attributes_of(node)
    factors = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0))
    return node.op_type == "Gemm" and factors == (1.0, 1.0) and not attributes.get("transA")
