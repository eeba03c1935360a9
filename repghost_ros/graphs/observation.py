# SPDX-License-Identifier: Apache-2.0
"""Statistics of the tensors inside a float model on real pictures, by channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, need
from repghost_ros.graphs.graph import copy_of


@dataclass(frozen=True)
class Channels:
    """One tensor's values over all pictures and positions."""

    mean: np.ndarray
    """float64 (channels,)."""
    largest: np.ndarray
    """float64 (channels,): of the absolute values."""


def observe(model: Any, names: Iterable[str], images: Iterable[np.ndarray]) -> dict[str, Channels]:
    """Run a model and collect statistics of tensors inside it.

    Args:
        model: an onnx.ModelProto with one input.
        names: tensors of shape (1, channels, ...).
        images: inputs of the model; at least one.

    Raises:
        ConversionError: the model cannot be run.
        DependencyError: onnx or ONNX Runtime is missing.

    """
    onnx = need("onnx", "pip install onnx")
    onnxruntime = need("onnxruntime", "pip install onnxruntime")
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    opened = copy_of(model)
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    del opened.graph.output[:]
    opened.graph.output.extend(outputs)
    try:
        session = onnxruntime.InferenceSession(
            opened.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (image,) = session.get_inputs()
        means: dict[str, list[np.ndarray]] = {name: [] for name in names}
        largest: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for image_of in images:
            for name, value in zip(names, session.run(names, {image.name: image_of}), strict=True):
                channels = value[0].reshape(value.shape[1], -1)
                means[name].append(channels.mean(axis=1, dtype=np.float64))
                largest[name].append(np.abs(channels).max(axis=1).astype(np.float64))
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise ConversionError(f"ONNX Runtime cannot run the model: {error}") from error
    return {
        name: Channels(np.mean(means[name], axis=0), np.max(largest[name], axis=0))
        for name in names
    }
