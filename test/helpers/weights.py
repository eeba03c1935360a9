# SPDX-License-Identifier: Apache-2.0
"""Models with other weights that compute the same, and are harder to quantize."""

from __future__ import annotations

from typing import Any

import numpy as np

from repghost_ros.graphs.graph import remove_unused
from repghost_ros.graphs.weighted import weighted_nodes


def scaled_apart(model: Any, decades: float = 2.0) -> Any:
    """RepGhost with the channels before each cheap operation 10 ** (-decades to decades) as large.

    The cheap operation undoes it, so the logits stay; but one scale cannot serve these channels.
    """
    rng = np.random.default_rng(0)
    graph = model.graph
    layers = weighted_nodes(graph)
    relus = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}
    for layer in layers:
        if "ghost1/primary_conv" not in layer.target:
            continue
        factors = 10 ** rng.uniform(-decades, decades, layer.outputs)
        layer.kernel = layer.kernel * layer.of_outputs(factors)
        layer.bias = layer.bias * factors
        for user in layers:
            if user.source == relus[layer.target]:
                user.kernel = user.kernel / user.of_inputs(factors)
    for layer in layers:
        layer.write(graph)
    remove_unused(graph)
    return model
