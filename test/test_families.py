# SPDX-License-Identifier: Apache-2.0
"""Fusing goes as far as timm's re-parameterization, for every family that timm and the zoo share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from helpers.networks import network

from repghost_ros.graphs.fusing import TOLERANCE, drift_of, fuse

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch", reason="torch is not installed")
BRANCHED = (
    *("repghostnet_050", "repghostnet_150", "mobileone_s0", "mobileone_s1", "repvit_m0_9"),
    *("fastvit_t8", "repvgg_a0", "efficientvit_m5"),
)
PLAIN = (
    *("mobilenetv4_conv_small", "mobilenetv2_100", "mobilenetv3_large_100", "fasternet_t0"),
    *("resnet18", "convnext_atto", "edgenext_xx_small", "efficientformer_l1"),
    *("efficientformerv2_s0", "efficientnet_b2"),
)


def exported(model: Any) -> Any:
    """Export an onnx.ModelProto, as the zoo's converters write it."""
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 224, 224),),
        file,
        opset_version=11,
        input_names=["data"],
        output_names=["output"],
        dynamo=False,
    )
    return onnx.load_from_string(file.getvalue())


def parameters(model: Any) -> int:
    return sum(int(np.prod(entry.dims)) for entry in model.graph.initializer)


def drift(one: Any, other: Any) -> float:
    images = np.random.default_rng(0).standard_normal((2, 1, 3, 224, 224), np.float32)
    return drift_of(one, other, "data", list(images))


@pytest.mark.parametrize("name", BRANCHED)
def test_fuses_as_far_as_timm(name: str) -> None:
    model = network(name)
    from timm.utils import reparameterize_model  # after import_timm has prepared the way

    graph, wanted = exported(model), exported(reparameterize_model(model))
    fused = fuse(graph)
    assert len(fused.graph.node) <= len(wanted.graph.node) < len(graph.graph.node)
    assert parameters(fused) <= parameters(wanted) < parameters(graph)
    assert drift(graph, fused) <= TOLERANCE


@pytest.mark.parametrize("name", PLAIN)
def test_networks_without_branches_answer_alike(name: str) -> None:
    graph = exported(network(name))
    fused = fuse(graph)
    assert len(fused.graph.node) <= len(graph.graph.node)
    assert drift(graph, fused) <= TOLERANCE
