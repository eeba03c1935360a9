# SPDX-License-Identifier: Apache-2.0
"""Run a classifier without its last linear layer: its outputs are features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from repghost_ros.backends.base import DEFAULTS, BackendOptions
from repghost_ros.engine.model import Model, ModelSpec
from repghost_ros.graphs.graph import save
from repghost_ros.graphs.head import Trunk, copy_with_metadata
from repghost_ros.zoo.own import LABELS_KEY


def open_trunk(trunk: Trunk, options: BackendOptions = DEFAULTS) -> Model:
    """Open a trunk with ONNX Runtime; the logits of its answers are features.

    Args:
        trunk: a classifier without its head.
        options: how to run it; the activation is ignored, for features have none.

    Raises:
        BackendError: ONNX Runtime is missing or cannot run it.
        DependencyError: onnx is missing.

    """
    with TemporaryDirectory(prefix="repghost_") as folder:
        path = Path(folder, "trunk.onnx")
        names = "\n".join(f"feature {number}" for number in range(trunk.features))
        save(copy_with_metadata(trunk.model, {LABELS_KEY: names}), path)
        # Softmax, so that features are not taken for probabilities.
        options = replace(options, activation="softmax")
        return ModelSpec("", str(path), backend="onnx", options=options).open()
