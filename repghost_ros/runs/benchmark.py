# SPDX-License-Identifier: Apache-2.0
"""Passes through a model, timed on this machine: the columns of the model zoo's table."""

from __future__ import annotations

import csv
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from repghost_ros.backends.base import Slot
from repghost_ros.engine.model import Answered, Model
from repghost_ros.engine.request import Request
from repghost_ros.engine.threads import cores
from repghost_ros.errors import need
from repghost_ros.files import read_line
from repghost_ros.output import whole_file
from repghost_ros.sources.signs import render
from repghost_ros.vision.frame import from_compressed
from repghost_ros.zoo.catalogue import MODELS

_CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
MEASURED, PUBLISHED = "measured here", "published, RDK X5"


INFERENCE, END_TO_END = "inference", "end to end"
"""What one pass is: the model alone; a JPEG decoded, converted to NV12 and inferred."""
_PICTURE = (640, 480)  # pixels, of the JPEG


@dataclass(frozen=True)
class Timing:
    """One line of the table."""

    model: str
    source: str
    """MEASURED, or PUBLISHED by the model zoo for its board."""
    backend: str
    work: str
    """INFERENCE or END_TO_END."""
    params_m: float | None
    """Parameters, millions; of a measured file those that are left after fusing."""
    threads: int
    latency_ms: float
    """Of one pass with that many threads at it; measured: the median."""
    batch: int = 1
    """Frames in one pass."""
    mean_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    fps: float | None = None
    """Frames a second, all threads together."""
    passes: int | None = None
    """How many were measured."""


def measure(
    model: Model, threads: int, seconds: float = 3.0, work: str = INFERENCE, batch: int = 1
) -> Timing:
    """Infer from several threads at once, as fast as possible.

    Args:
        model: stays the caller's.
        threads: each with its own buffers and one pass at a time.
        seconds: how long, after a warm-up of `warm_up(seconds)`.
        work: INFERENCE or END_TO_END.
        batch: frames in one pass, no more than the model's batch.

    Raises:
        BackendError: the device has no room for that many, or an inference failed.

    """
    passes = _Passes(partial(_classify, model, _jpeg()) if work == END_TO_END else _infer, batch)
    rng = np.random.default_rng(0)
    slots: list[Slot] = []
    pool = ThreadPoolExecutor(threads, "bench")
    try:
        for _ in range(threads):
            slots.append(model.open_slot())
            for nv12 in slots[-1].inputs:
                nv12[...] = rng.integers(0, 256, nv12.shape, dtype=np.uint8)
        begin = time.perf_counter() + warm_up(seconds)
        # Not Thread.join: when interrupted, Python before 3.13 considers the thread ended.
        wait([pool.submit(passes.repeat, slot, begin, begin + seconds) for slot in slots])
        elapsed = time.perf_counter() - begin
    finally:  # even when interrupted: buffers must outlive the passes that use them
        passes.stopped.set()
        pool.shutdown()
        for slot in slots:
            slot.close()
    if passes.errors:
        raise passes.errors[0]
    milliseconds = np.array(passes.seconds) * 1e3
    p50, p90, p99 = (float(np.percentile(milliseconds, share)) for share in (50, 90, 99))
    return Timing(
        *(model.name, MEASURED, model.runtime, work, parameters_m(model.path), threads),
        latency_ms=p50,
        batch=batch,
        mean_ms=float(milliseconds.mean()),
        p90_ms=p90,
        p99_ms=p99,
        fps=batch * len(milliseconds) / elapsed,
        passes=len(milliseconds),
    )


@dataclass(frozen=True)
class _Passes:
    """Passes of several threads, and the time that each took."""

    work: Callable[[Slot, int], None]
    batch: int
    seconds: list[float] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def repeat(self, slot: Slot, begin: float, end: float) -> None:
        """Time the passes from `begin` to `end`, at least one; both are of time.perf_counter."""
        timed: list[float] = []
        try:
            now = time.perf_counter()
            while (now < end or not timed) and not self.stopped.is_set():
                started = now
                self.work(slot, self.batch)
                now = time.perf_counter()
                if started >= begin:
                    timed.append(now - started)
        except Exception as error:  # raised again in the caller's thread
            self.errors.append(error)
            self.stopped.set()
        self.seconds.extend(timed)


def _infer(slot: Slot, batch: int) -> None:
    slot.infer_batch(batch)


def _classify(model: Model, jpeg: SimpleNamespace, slot: Slot, batch: int) -> None:
    for outcome in model.run([Request(jpeg, from_compressed) for _ in range(batch)], slot):
        if not isinstance(outcome, Answered):
            raise outcome.error


def warm_up(seconds: float) -> float:
    """Seconds of unmeasured passes before a measurement of `seconds`."""
    return seconds / 10


def environment() -> dict[str, Any]:
    """Return what timings depend on besides the model: the machine, its load, and versions."""
    return {
        "host": platform.node(),
        "processor": _processor(),
        "cores": cores(),
        "load_1min": round(os.getloadavg()[0], 2),
        "governor": read_line(_GOVERNOR) or None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def _processor() -> str:
    for line in read_line(_CPUINFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return read_line(_BOARD).strip("\0\n") or platform.processor()


def _jpeg() -> SimpleNamespace:
    """Make a picture as a camera driver publishes it: sensor_msgs/CompressedImage by its fields."""
    width, height = _PICTURE
    picture = render("stop", np.random.default_rng(0), width, height)
    return SimpleNamespace(data=cv2.imencode(".jpg", picture)[1].tobytes(), format="jpeg")


def published_timings(model: str) -> list[Timing]:
    """Return the model zoo's figures; empty for models that it does not have."""
    figures = MODELS[model].published if model in MODELS else None
    if figures is None:
        return []
    about = (model, PUBLISHED, "BPU", INFERENCE, figures.params_m)
    return [
        Timing(*about, 1, figures.latency_1_ms),
        Timing(*about, 4, figures.latency_4_ms, fps=figures.fps),
    ]


def parameters_m(path: Path) -> float | None:
    """Return the millions of weights in an ONNX file; None without onnx, and for compiled models.

    Raises:
        DependencyError: onnx is installed, but broken.

    """
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
    """One line per timing, below a header."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Timing)])
        writer.writeheader()
        writer.writerows(asdict(timing) for timing in timings)
