"""Inference alone, timed on this machine: the columns of the model zoo's table."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from repghost_ros.backends.base import Slot
from repghost_ros.errors import need
from repghost_ros.model import Model
from repghost_ros.output import whole_file
from repghost_ros.zoo.catalogue import MODELS

MEASURED, PUBLISHED = "measured here", "published, RDK X5"


@dataclass(frozen=True)
class Timing:
    """One line of the table."""

    model: str
    source: str
    """MEASURED, or PUBLISHED by the model zoo for its board."""
    backend: str
    params_m: float | None
    """Parameters, millions; of a measured file those that are left after fusing."""
    threads: int
    latency_ms: float
    """Of one inference with that many threads at it; measured: the median."""
    p99_ms: float | None
    fps: float | None


def measure(model: Model, threads: int, seconds: float = 3.0) -> Timing:
    """Infer from several threads at once, as fast as it goes.

    Args:
        model: stays the caller's.
        threads: each with buffers of its own and one inference at a time.
        seconds: how long, after a tenth of it to warm up.

    Raises:
        BackendError: the device has no room for that many, or an inference failed.

    """
    slots: list[Slot] = []
    latencies: list[list[float]] = [[] for _ in range(threads)]
    errors: list[Exception] = []
    rng = np.random.default_rng(0)

    def work(slot: Slot, own: list[float]) -> None:
        try:
            now = time.perf_counter()
            while (now < end or not own) and not errors:
                started = now
                slot.infer()
                now = time.perf_counter()
                if started >= begin:
                    own.append(now - started)
        except Exception as error:  # raised again in the caller's thread
            errors.append(error)

    try:
        for _ in range(threads):
            slots.append(model.open_slot())
            slots[-1].nv12[...] = rng.integers(0, 256, slots[-1].nv12.shape, dtype=np.uint8)
        begin = time.perf_counter() + seconds / 10
        end = begin + seconds
        crew = [
            threading.Thread(target=work, args=pair) for pair in zip(slots, latencies, strict=True)
        ]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        elapsed = time.perf_counter() - begin
    finally:
        for slot in slots:
            slot.close()
    if errors:
        raise errors[0]
    every = np.concatenate(latencies)
    return Timing(
        model.name,
        MEASURED,
        model.runtime,
        parameters_m(model.path),
        threads,
        float(np.median(every)) * 1e3,
        float(np.percentile(every, 99)) * 1e3,
        len(every) / elapsed,
    )


def published(model: str) -> list[Timing]:
    """What the model zoo published, empty for other models than its own."""
    if model not in MODELS:
        return []
    figures = MODELS[model].published
    about = (model, PUBLISHED, "BPU", figures.params_m)
    return [
        Timing(*about, 1, figures.latency_1_ms, None, None),
        Timing(*about, 4, figures.latency_4_ms, None, figures.fps),
    ]


def parameters_m(path: Path) -> float | None:
    """Millions of weights in an ONNX file; None without onnx, and for compiled models."""
    if path.suffix.lower() != ".onnx" or find_spec("onnx") is None:
        return None
    onnx = need("onnx", "pip install onnx")
    weights = [
        tensor
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type != onnx.TensorProto.INT64  # shapes and axes
        and not tensor.name.endswith(("scale", "zero_point"))  # of quantized ones
    ]
    return float(sum(np.prod(tensor.dims, dtype=np.int64) for tensor in weights)) / 1e6


def write_csv(path: Path, timings: Sequence[Timing]) -> None:
    """One line a timing, with a header."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Timing)])
        writer.writeheader()
        writer.writerows(asdict(timing) for timing in timings)
