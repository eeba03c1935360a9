# SPDX-License-Identifier: Apache-2.0
"""Time of the operators that the vendor's compiler leaves to the CPU, of which it predicts none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from repghost_ros.backends.onnx import library
from repghost_ros.errors import need
from repghost_ros.graphs.graph import load

_ROUNDS = 50  # runs timed of each operator


@dataclass(frozen=True)
class CpuOperator:
    """An operator that runs on the CPU."""

    operator: str
    """Such as Softmax."""
    pc_ms: float | None
    """Median milliseconds for one picture in ONNX Runtime, with one thread, on the PC that measured it;
    None of an operator that ONNX Runtime cannot run."""


def measure_cpu_operators(model: Path, nodes: Mapping[str, str]) -> tuple[CpuOperator, ...]:
    """Run each operator alone, on random input of its shapes.

    Args:
        model: the quantized .onnx, which holds the nodes.
        nodes: operators by the names of their nodes.

    Raises:
        BackendError: ONNX Runtime is missing.
        ConversionError: it is not an ONNX model.
        DependencyError: onnx is missing.

    """
    if not nodes:
        return ()
    loaded = load(model)
    known = {node.name: node for node in loaded.graph.node}
    return tuple(
        CpuOperator(operator, _time(loaded, known[name]) if name in known else None)
        for name, operator in nodes.items()
    )


def _time(model: Any, node: Any) -> float | None:
    """Return the median milliseconds of a node; None if it cannot be run."""
    onnx, onnxruntime = need("onnx", "pip install onnx"), library()
    graph, read = model.graph, {name for name in node.input if name}
    weights = [entry for entry in graph.initializer if entry.name in read]
    values = {entry.name: entry for entry in (*graph.input, *graph.value_info)}
    fed = [values[name] for name in sorted(read & values.keys() - {w.name for w in weights})]
    made = [onnx.ValueInfoProto(name=name) for name in node.output]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "alone", fed, made, weights),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        inputs = {entry.name: _random(entry) for entry in fed}
        session.run(None, inputs)
    except Exception:  # of an operator that is the vendor's own, or of a shape that is not known
        return None
    taken = []
    for _ in range(_ROUNDS):
        started = perf_counter()
        session.run(None, inputs)
        taken.append((perf_counter() - started) * 1e3)
    return median(taken)


def _random(value: Any) -> np.ndarray:
    """Return an array of an onnx.ValueInfoProto's shape and type."""
    onnx = need("onnx", "pip install onnx")
    tensor = value.type.tensor_type
    shape = [dimension.dim_value for dimension in tensor.shape.dim]
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return np.random.default_rng(0).normal(size=shape).astype(kind)
