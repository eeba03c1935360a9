# SPDX-License-Identifier: Apache-2.0
"""Build and drive the emulated board: libdnn.c, a stand-in for the vendor's library.

It was written from the vendor's published interface, and the vendor's own Python binding runs on it
(`make test-arm`); it has never been compared with a board.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.paths import share
from repghost_ros.sources.signs import LABELS
from repghost_ros.zoo.catalogue import DEMO_FILES, MODELS

HERE = Path(__file__).parent
COMPUTE = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int
)
STATS = (
    "live_models",
    "live_allocations",
    "live_tasks",
    "bad_frees",
    "bad_handles",
    "freed_in_use",
    "stale_inputs",
    "inferences",
    "in_flight",
    "max_in_flight",
    "busy_ns",
)
"""What the emulator counts, in the order of its struct of int64."""


def build(folder: Path, compiler: Sequence[str] = ("gcc",)) -> Path:
    """Compile libdnn.so into a folder."""
    library = folder / "libdnn.so"
    command = [*compiler, "-std=gnu11", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
    command += ["-Wl,-soname,libdnn.so"]
    subprocess.run([*command, "-o", str(library), str(HERE / "libdnn.c")], check=True)
    return library


def timings(size: str) -> dict[str, int]:
    """Microseconds per frame of this size: on the BPU, and on the host.

    Derived from the published table: the BPU's share is one over the throughput of four threads,
    the rest of one thread's latency is the host's.
    """
    published = MODELS[size].published
    assert published is not None, f"{size} is not in the model zoo"
    exclusive = round(1e6 / published.fps)
    return {
        "exclusive_us": exclusive,
        "overhead_us": max(0, round(1e3 * published.latency_1_ms) - exclusive),
    }


def fused_timings(batch: int, size: str = "100") -> dict[str, int]:
    """Those of a size that is fused and compiled for 1 or 4 frames, as the vendor's compiler predicts.

    The host's share is the published one.
    """
    predicted = MODELS[size].predicted.fused_us[batch]
    return {**timings(size), "exclusive_us": round(predicted), "batch": batch}


def write_model(path: Path, *further: dict[str, Any], **properties: Any) -> Path:
    """Write a stand-in model file; the keys are those that read_model in libdnn.c knows.

    Args:
        path: of the file.
        further: more models in the same file, by what differs from the first; `name` must.
        properties: of the first.

    """
    first = {"name": "repghost", "width": 224, "height": 224, "classes": 1000, **properties}
    models = [first, *({**first, **other} for other in further)]
    lines = [f"{key} {value}\n" for model in models for key, value in model.items()]
    path.write_text("repghost-emulated-model 1\n" + "".join(lines))
    return path


DEMO_US = {1: 337, 4: 718}
"""Microseconds on the BPU of the demo model by batch, as the vendor's cycle model predicts."""


def demo_timings(batch: int) -> dict[str, int]:
    """Those of the demo model, compiled for so many frames; the host's share as of size 100."""
    classes = len(LABELS)
    return {**timings("100"), "exclusive_us": DEMO_US[batch], "batch": batch, "classes": classes}


def hash_logits(nv12: np.ndarray, classes: int) -> np.ndarray:
    """Return the logits that the emulator gives for an image unless it computes real ones."""
    data = np.ascontiguousarray(nv12).tobytes()
    words = np.frombuffer(data + bytes(-len(data) % 8), np.uint64)
    odd = 2 * np.arange(words.size, dtype=np.uint64) + np.uint64(1)
    golden, mixer = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
    mask = 2**64 - 1
    total = int((words * odd).sum(dtype=np.uint64))
    logits = []
    for i in range(classes):
        mixed = ((total ^ ((i + 1) * golden & mask)) * mixer) & mask
        mixed = ((mixed ^ (mixed >> 32)) * mixer) & mask
        logits.append((mixed >> 40) / 16777216 * 20 - 10)
    return np.array(logits, np.float32)


class Emulator:
    """The emulated library in this process: its counters, failures, and arithmetic."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self._dnn = ctypes.CDLL(str(library))
        self._dnn.emu_layout.restype = ctypes.c_char_p
        self._dnn.emu_limit.restype = ctypes.c_double
        self._dnn.emu_limit.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_double)
        self._callback: Any = None

    def stats(self) -> dict[str, int]:
        """Return the counters, see STATS."""
        values = (ctypes.c_int64 * len(STATS))()
        self._dnn.emu_stats(values)
        return dict(zip(STATS, values))

    def reset(self) -> None:
        """Reset the counters and pending failures."""
        self._dnn.emu_reset()

    def restart(self) -> None:
        """Free everything, as when a process ends."""
        self._dnn.emu_restart()

    def fail(self, operation: str, code: int, count: int = 1) -> None:
        """Let an operation (load, alloc, flush, infer, run, wait, hang) fail `count` times.

        `code` is the vendor's status, or the milliseconds to hang.
        """
        self._dnn.emu_fail(operation.encode(), code, count)

    def layout(self) -> dict[str, int]:
        """Offsets by `Struct.field` and sizes by `Struct`, as compiled."""
        lines = self._dnn.emu_layout().decode().splitlines()
        return {name: int(number) for name, number in (line.split() for line in lines)}

    def limit(self, model: Path, threads: int = 4, seconds: float = 3.0) -> float:
        """Inferences per second of the device itself, measured by a loop in C."""
        rate: float = self._dnn.emu_limit(os.fsencode(model), threads, seconds)
        if rate < 0:
            raise ValueError(f"'{model}' cannot be run {threads} times at once")
        return rate

    def compute(self, logits_of: Callable[[np.ndarray], np.ndarray] | None) -> None:
        """Answer with `logits_of` an NV12 image, or with hash_logits again."""
        if logits_of is None:
            self._dnn.emu_set_compute(None)
            self._callback = None
        else:
            self._answer(lambda image, _: logits_of(image))

    def compute_demo(self) -> None:
        """Answer with the demo model's float weights for models like it, else with hash_logits."""
        slot, lock = OnnxBackend(share() / "models" / DEMO_FILES["onnx"]).open_slot(), Lock()

        def answer(image: np.ndarray, classes: int) -> np.ndarray:
            if (image.shape, classes) != (slot.nv12.shape, len(LABELS)):
                return hash_logits(image, classes)
            with lock:  # tasks that several threads wait for
                slot.nv12[...] = image
                return slot.infer()

        self._answer(answer)

    def _answer(self, answer: Callable[[np.ndarray, int], np.ndarray]) -> None:
        def callback(nv12: Any, width: int, height: int, logits: int, classes: int) -> None:
            image = np.ctypeslib.as_array(nv12, (height * 3 // 2, width))
            given = answer(image, classes).astype(np.float32)
            assert given.size == classes
            ctypes.memmove(logits, given.ctypes.data, given.nbytes)

        # Kept alive while the library may call it.
        self._callback = COMPUTE(callback)
        self._dnn.emu_set_compute(self._callback)


def inject(control: Path, *failures: tuple[str, int, int]) -> None:
    """Make (operation, code, count) fail in the process whose REPGHOST_EMU_CONTROL is `control`."""
    written = control.with_suffix(".new")
    written.write_text("".join(f"{name} {code} {count}\n" for name, code, count in failures))
    os.replace(written, control)
