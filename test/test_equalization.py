# SPDX-License-Identifier: Apache-2.0
"""Weights prepared for eight bits: equalized channels and corrected biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.weights import scaled_apart

from repghost_ros.graphs.bias_correction import correct_biases
from repghost_ros.graphs.equalization import equalize
from repghost_ros.graphs.fusing import drift_of
from repghost_ros.graphs.observation import observe
from repghost_ros.graphs.weighted import weighted_nodes
from repghost_ros.paths import share

onnx = pytest.importorskip("onnx")
DEMO = share() / "models" / "demo.onnx"
IMAGES = list(np.random.default_rng(0).normal(size=(4, 1, 3, 224, 224)).astype(np.float32))


@pytest.fixture(scope="module")
def apart() -> Any:
    """Load the demo model with channels four orders of magnitude apart."""
    return scaled_apart(onnx.load(DEMO))


def imbalance(model: Any) -> float:
    """Return the largest quotient of two channels' ranges, as a median over the scaled tensors."""
    relus = [n.output[0] for n in model.graph.node if "ghost1/primary_conv" in n.output[0]]
    names = [name for name in relus if "Relu" in name]
    seen = observe(model, names, IMAGES)
    ranges = (each.largest[each.largest > 0] for each in seen.values())
    return float(np.median([each.max() / each.min() for each in ranges]))


def test_the_function_stays(apart: Any) -> None:
    model = onnx.load(DEMO)
    for source in (model, apart):
        assert drift_of(model, equalize(source, IMAGES), "data", IMAGES) < 1e-5


def test_channels_become_alike(apart: Any) -> None:
    assert imbalance(apart) > 1000
    assert imbalance(equalize(apart, IMAGES)) < 10


def test_models_with_nothing_to_scale_stay() -> None:
    """Inputs of a Sigmoid, and outputs of the model, have no factor to give away."""
    helper = onnx.helper
    rng = np.random.default_rng(0)
    weights = {"first": rng.normal(size=(4, 3, 1, 1)), "second": rng.normal(size=(2, 4, 1, 1))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "first"], ["a"]),
            helper.make_node("Sigmoid", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "second"], ["c"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1, 2, 8, 8])],
        [
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    opsets = [helper.make_opsetid("", 11)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=6)
    images = [rng.normal(size=(1, 3, 8, 8)).astype(np.float32)]
    layers = weighted_nodes(equalize(model, images).graph)
    for layer, kernel in zip(layers, weights.values(), strict=True):
        assert np.allclose(layer.kernel, kernel)


def test_biases_make_up_for_rounded_weights() -> None:
    """With its weights rounded, the corrected model's means are nearer to float's than the model's."""
    model = onnx.load(DEMO)
    images = [image + 1 for image in IMAGES]  # errors of weights cancel out where the mean is zero
    first = weighted_nodes(model.graph)[0]
    wanted = observe(model, [first.target], images)[first.target].mean

    def off(prepared: Any) -> float:
        layer = weighted_nodes(prepared.graph)[0]
        steps = layer.of_outputs(np.abs(layer.kernel).max(axis=(1, 2, 3)) / 127)
        layer.kernel = np.rint(layer.kernel / steps) * steps
        layer.write(prepared.graph)
        means = observe(prepared, [layer.target], images)[layer.target].mean
        return float(np.abs(means - wanted).max())

    before = off(onnx.load(DEMO))
    assert off(correct_biases(model, images)) < 0.5 * before
