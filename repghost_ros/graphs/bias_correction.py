# SPDX-License-Identifier: Apache-2.0
"""Bias correction: subtract from a layer's bias the mean error that rounding its weights causes.

Nagel et al., arXiv 1906.04721, section 4.2, with means measured on pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from repghost_ros.graphs.graph import copy_of
from repghost_ros.graphs.observation import observe
from repghost_ros.graphs.weighted import Weighted, weighted_nodes, write

_LARGEST = 127  # of a weight's integers


def correct_biases(model: Any, images: Iterable[np.ndarray]) -> Any:
    """Return a float model whose biases compensate for the mean error of 8-bit weights.

    Args:
        model: an onnx.ModelProto of float32; it is not changed.
        images: inputs of the model, to measure means on.

    Raises:
        ConversionError: the model cannot be run.
        DependencyError: onnx or ONNX Runtime is missing.

    """
    corrected = copy_of(model)
    layers = weighted_nodes(corrected.graph)
    seen = observe(corrected, [layer.source for layer in layers], images)
    for layer in layers:
        errors = _rounded(layer) - layer.kernel
        means = layer.of_inputs(seen[layer.source].mean)
        layer.bias = layer.bias - (errors * means).reshape(layer.outputs, -1).sum(axis=1)
    write(layers, corrected.graph)
    return corrected


def _rounded(layer: Weighted) -> np.ndarray:
    """Return the kernel rounded to eight bits, with a scale per output."""
    steps = layer.of_outputs(np.abs(layer.kernel).reshape(layer.outputs, -1).max(axis=1) / _LARGEST)
    safe = np.where(steps > 0, steps, 1)
    rounded: np.ndarray = np.rint(layer.kernel / safe) * safe
    return rounded
