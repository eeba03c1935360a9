# SPDX-License-Identifier: Apache-2.0
"""Operators that the vendor's compiler leaves to the CPU: how long they take, and what it means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.networks import split_by_softmax

from repghost_ros.convert.certificate_page import on_cpu
from repghost_ros.convert.compilation import Job, prediction
from repghost_ros.convert.cpu_operators import CpuOperator, measure_cpu_operators
from repghost_ros.errors import ConversionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_each_operator_is_run_alone(tmp_path: Path) -> None:
    """With its weights and shapes; what ONNX Runtime cannot run has no time."""
    path = split_by_softmax(tmp_path / "split.onnx")
    model = onnx.load(path)
    model.graph.node[3].domain = "horizon"
    onnx.save(model, path)
    nodes = {"softmax": "Softmax", "conv2": "Conv", "pool": "HzPool", "absent": "Elu"}
    softmax, convolution, *others = measure_cpu_operators(path, nodes)
    assert [softmax.operator, convolution.operator] == ["Softmax", "Conv"]
    assert softmax.pc_ms
    assert convolution.pc_ms
    assert others == [CpuOperator("HzPool", None), CpuOperator("Elu", None)]


def test_the_times_are_said_to_be_of_this_pc() -> None:
    said = on_cpu([CpuOperator("Softmax", 0.0521), CpuOperator("HzPool", None)])
    assert "2 operators, Softmax 0.052 ms, HzPool not measured, a picture" in said
    assert "measured on this PC, one thread; the board's Cortex-A55 is slower" in said


def test_the_prediction_is_of_all_parts(tmp_path: Path) -> None:
    """The compiler predicts each part that the CPU's operators leave to the BPU by itself."""
    job = Job(tmp_path, tmp_path / "split.yaml", (), tmp_path, "split")
    with pytest.raises(ConversionError, match="left no prediction"):
        prediction(job)
    for number, (latency, fps) in enumerate(((400.0, 10_000.0), (100.0, 40_000.0))):
        summary = {"latency (us)": latency, "FPS": fps, "DDR bytes per frame": 1000}
        path = tmp_path / f"main_subgraph_{number}.json"
        path.write_text(json.dumps({"summary": summary}))
    predicted = prediction(job)
    assert predicted.latency_us == 500.0
    assert predicted.fps == pytest.approx(8000.0)  # of batches of four
    assert predicted.ddr_bytes == 2000
