"""NV12 -> logits: one small protocol, one module a runtime, each imported only when it is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from repghost_ros.errors import BackendError

BACKENDS = ("auto", "bpu", "onnx")
BPU_RUNTIMES = ("auto", "libdnn", "hbm_runtime", "hobot_dnn")
FORMATS = {"bpu": "bin", "onnx": "onnx"}  # backend -> format of its model files
_SUFFIXES = {".bin": "bpu", ".hbm": "bpu", ".onnx": "onnx"}


class Slot(Protocol):
    """What one worker needs to infer: its input buffer and its place on the device."""

    @property
    def nv12(self) -> np.ndarray:
        """uint8 (height * 3 // 2, width): the frame goes here, in the device's memory if it has one."""

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`.

        Returns:
            float32 (classes,) logits, the caller's own copy.

        Raises:
            BackendError: the device refused, failed or timed out.

        """

    def close(self) -> None:
        """Give the slot's buffers back; further calls do nothing."""


class Backend(Protocol):
    """A loaded model. Its slots may infer at the same time, one thread each."""

    @property
    def name(self) -> str:
        """The runtime in words, as shown in logs and diagnostics."""

    @property
    def width(self) -> int:
        """Input width in pixels."""

    @property
    def height(self) -> int:
        """Input height in pixels."""

    @property
    def classes(self) -> int:
        """Number of logits."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names that the model file carries, empty where it carries none."""

    def open_slot(self) -> Slot:
        """Allocate the buffers of one worker.

        Raises:
            BackendError: the device has no room for another slot.

        """

    def close(self) -> None:
        """Unload the model; further calls do nothing. Its slots are closed first."""


@dataclass(frozen=True)
class BackendOptions:
    """How a model is to be run; each runtime reads what concerns it."""

    bpu_runtime: str = "auto"
    """One of BPU_RUNTIMES."""
    bpu_core: int = 0
    """BPU core to run on: 0 for any."""
    bpu_priority: int = 0
    """Task priority on the BPU, 0 (lowest) to 255."""
    timeout_s: float = 1.0
    """Seconds to wait for one inference on the BPU before it counts as failed."""
    color_range: str = "full"
    """Range of the NV12 that the ONNX backend is given: full or limited (BT.601)."""
    onnx_threads: int = 1
    """ONNX Runtime threads inside one inference; the workers run beside each other anyway."""


def choose_backend(backend: str = "auto", model: str = "", model_path: str = "") -> str:
    """The backend that `auto` stands for: the model file's own, else the BPU where there is one.

    Args:
        backend: one of BACKENDS.
        model: the model's name; `demo` exists as ONNX only.
        model_path: a model file given by the user, or empty.

    Returns:
        `bpu` or `onnx`.

    Raises:
        BackendError: `model_path` is no model file of that backend.

    """
    if backend not in BACKENDS:
        raise BackendError(f"backend '{backend}' is unknown: choose one of {', '.join(BACKENDS)}")
    if model_path:
        suffix = Path(model_path).suffix.lower()
        if suffix not in _SUFFIXES:
            raise BackendError(
                f"'{model_path}' is no model file: expected {', '.join(sorted(_SUFFIXES))}"
            )
        if backend not in ("auto", _SUFFIXES[suffix]):
            raise BackendError(
                f"backend '{backend}' cannot run '{model_path}': that is a file for the backend "
                f"'{_SUFFIXES[suffix]}'"
            )
        return _SUFFIXES[suffix]
    if model == "demo":
        if backend == "bpu":
            raise BackendError(
                "the demo model exists as ONNX only: use backend 'onnx' or a size such as '150'"
            )
        return "onnx"
    if backend != "auto":
        return backend
    return "bpu" if any(reason is None for reason in bpu_availability().values()) else "onnx"


def bpu_availability() -> dict[str, str | None]:
    """Each BPU runtime, fastest first: None where it is usable here, else why not and what to do."""
    return {
        name: import_module(f"{__name__}.{name}").available()
        for name in BPU_RUNTIMES
        if name != "auto"
    }


def choose_bpu_runtime(runtime: str = "auto") -> str:
    """The BPU runtime that `auto` stands for: the first usable one, fastest first.

    Raises:
        BackendError: the runtime is unknown or not usable here, and why.

    """
    if runtime not in BPU_RUNTIMES:
        raise BackendError(
            f"BPU runtime '{runtime}' is unknown: choose one of {', '.join(BPU_RUNTIMES)}"
        )
    availability = bpu_availability()
    if runtime != "auto":
        availability = {runtime: availability[runtime]}
    for name, reason in availability.items():
        if reason is None:
            return name
    reasons = "; ".join(f"{name}: {reason}" for name, reason in availability.items())
    raise BackendError(f"no BPU runtime is usable here ({reasons})")


def open_backend(path: Path, options: BackendOptions | None = None) -> Backend:
    """Load a model file: .onnx with ONNX Runtime, .bin or .hbm on the BPU.

    Raises:
        BackendError: the runtime is missing, or the model is missing, corrupt or no classifier.

    """
    options = options or BackendOptions()
    if choose_backend(model_path=str(path)) == "onnx":
        from repghost_ros.backends.onnx import OnnxBackend

        return OnnxBackend(path, color_range=options.color_range, threads=options.onnx_threads)
    runtime = choose_bpu_runtime(options.bpu_runtime)
    if runtime == "libdnn":
        from repghost_ros.backends.libdnn import LibdnnBackend

        return LibdnnBackend(
            path,
            core=options.bpu_core,
            priority=options.bpu_priority,
            timeout_s=options.timeout_s,
        )
    if runtime == "hbm_runtime":
        from repghost_ros.backends.hbm_runtime import HbmRuntimeBackend

        return HbmRuntimeBackend(path, core=options.bpu_core, priority=options.bpu_priority)
    from repghost_ros.backends.hobot_dnn import HobotDnnBackend

    return HobotDnnBackend(path)
