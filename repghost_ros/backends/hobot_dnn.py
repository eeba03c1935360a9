# SPDX-License-Identifier: Apache-2.0
"""NV12 -> logits on the BPU through the vendor's Python package, hobot_dnn (pyeasy_dnn).

It is for boards on which libdnn cannot be called directly. The following was measured with version
3.0.6: `forward` holds Python's lock until the BPU is done and waits without a time limit, so workers
do not work in parallel, and if the BPU hangs, so does the process. Models and failed tasks are never
released. Only the first of several models in a file is loaded.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.backends.base import (
    DEFAULTS,
    BackendOptions,
    Runtime,
    SingleSlot,
    image_size,
    load_module,
    why_not,
)
from repghost_ros.backends.hb_dnn import Shape
from repghost_ros.errors import BackendError
from repghost_ros.zoo.binary import look_at
from repghost_ros.zoo.model_file import ModelFile

_log = logging.getLogger(__name__)
_PACKAGES = ("hobot_dnn", "hobot_dnn_rdkx5")  # the board's image; PyPI
_INSTALL = (
    "it comes with the board's image (apt install hobot-dnn); elsewhere "
    "pip install hobot-dnn-rdkx5 'numpy<2'"
)
_MOST_MODELS = 8  # per process, because models are never released
_TASKS = 32  # that the device accepts at a time


def library() -> Any:
    """Import pyeasy_dnn.

    Raises:
        BackendError: it is not installed, or cannot be imported.

    """
    return load_module(*(f"{package}.pyeasy_dnn" for package in _PACKAGES), install=_INSTALL)


def available() -> str | None:
    """None if hobot_dnn can be imported, else why not and what to install."""
    return why_not(library)


@lru_cache
def version() -> str:
    """Return the version of the distribution that contains hobot_dnn, empty if there is none."""
    package = library().__name__.partition(".")[0]
    return ", ".join(
        metadata.version(name) for name in metadata.packages_distributions().get(package, [])
    )


@dataclass
class _Loaded:
    """A model that stays in the BPU's memory until the process ends."""

    model: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held for every task: the package says nothing of calls from several threads."""
    failures: int = 0
    """Tasks that failed; each may stay occupied for ever."""


_loaded: dict[tuple[Path, int, int, str], _Loaded] = {}
_loading = threading.Lock()


def _load(path: Path, name: str) -> _Loaded:
    """Load a model file, once for as long as the file does not change."""
    if not path.is_file():
        raise BackendError(f"model file '{path}' does not exist")
    status = path.stat()
    key = path.resolve(), status.st_mtime_ns, status.st_size, name
    with _loading:
        if key not in _loaded:
            if len(_loaded) >= _MOST_MODELS:
                raise BackendError(
                    f"hobot_dnn never releases a model, and this process has loaded {_MOST_MODELS}: "
                    "restart it, or use bpu_runtime libdnn"
                )
            pyeasy_dnn = library()
            try:
                models = list(pyeasy_dnn.load(str(path)))
            except Exception as error:
                raise BackendError(
                    f"'{path}' cannot be loaded: {look_at(path)} ({_reason(error)})"
                ) from error
            _loaded[key] = _Loaded(_named(path, models, name))
        return _loaded[key]


def _named(path: Path, models: list[Any], name: str) -> Any:
    listed = ", ".join(str(model.name) for model in models)
    fitting = [model for model in models if name in ("", model.name)]
    if len(fitting) == 1:
        return fitting[0]
    raise BackendError(
        f"hobot_dnn finds {len(models)} models in '{path}' ({listed}): choose one with model_name, "
        "or use bpu_runtime libdnn"
    )


def _reason(error: BaseException) -> str:
    """Return the actual cause, which the package wraps in a SystemError without a message."""
    return str(error.__cause__ or error)


class HobotDnnBackend:
    """A compiled model on the BPU.

    Args:
        path: the .bin file.
        options: `bpu_core`, `bpu_priority` and `model_name` are read; `timeout_s` has no effect.

    Raises:
        BackendError: hobot_dnn is missing, or the file is missing, corrupt, or no NV12 classifier
            whose output hobot_dnn can read.

    """

    labels: tuple[str, ...] = ()  # compiled models carry none
    batch = 1

    def __init__(self, path: Path, options: BackendOptions = DEFAULTS) -> None:
        self.loaded = _load(path, options.model_name)
        self.runtime = f"hobot_dnn {version()}".strip()
        self.scheduling = {"core_id": options.bpu_core, "priority": options.bpu_priority}
        model = self.loaded.model
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise BackendError(f"'{path}' is not a classifier: expected one input and one output")
        image = model.inputs[0].properties
        if "NV12" not in str(image.tensor_type).upper():
            raise BackendError(
                f"the input of '{path}' is {image.tensor_type}: expected NV12; compile the model "
                "with input_type_rt: nv12"
            )
        shape = [int(size) for size in image.shape]
        if len(shape) == 4 and shape[0] > 1:
            raise BackendError(
                f"'{path}' takes batches of {shape[0]} images, which hobot_dnn cannot give it: use "
                "bpu_runtime libdnn"
            )
        self.width, self.height = image_size(path, shape, channels_last=str(image.layout) == "NHWC")
        self._read_output(path, model.outputs[0].properties)
        _log.warning(
            "hobot_dnn holds Python's lock while the BPU works and waits without a time limit: more "
            "workers do not help, and no watchdog can act where the BPU hangs; prefer libdnn"
        )

    def _read_output(self, path: Path, logits: Any) -> None:
        shape = [int(size) for size in logits.shape]
        self.classes = max(shape, default=0)
        if self.classes < 2 or np.prod(shape) != self.classes:
            raise BackendError(f"the output of '{path}' has shape {shape}: expected 1xCLASSESx1x1")
        aligned = getattr(logits, "alignedShape", shape)
        if isinstance(aligned, int):  # the address of the vendor's structure
            aligned = Shape.from_address(aligned).sizes()
        if list(aligned) != shape:
            raise BackendError(
                f"the output of '{path}' is padded from {shape} to {list(aligned)}, which hobot_dnn "
                "cannot read: use bpu_runtime libdnn"
            )
        self.factor = np.ones(1, np.float32)
        if "float" in str(logits.dtype):
            return
        self.factor = np.asarray(logits.scale_data, np.float32).reshape(-1)
        if self.factor.size not in (1, self.classes):
            raise BackendError(
                f"the output of '{path}' is {logits.dtype} with {self.factor.size} scales, which "
                "hobot_dnn does not explain: use bpu_runtime libdnn"
            )
        _log.warning("hobot_dnn does not tell zero points: the output is taken as symmetric")

    def open_slot(self) -> HobotDnnSlot:
        """Open a buffer for one worker."""
        return HobotDnnSlot(self)

    def close(self) -> None:
        """Nothing can be released: the next one to open this file gets the same model."""


class HobotDnnSlot(SingleSlot):
    """One worker's NV12 buffer."""

    def __init__(self, backend: HobotDnnBackend) -> None:
        super().__init__(backend.height, backend.width)
        self._backend = backend

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`: float32 (classes,).

        Raises:
            BackendError: the BPU failed, or returned an invalid output.

        """
        backend, loaded = self._backend, self._backend.loaded
        with loaded.lock:
            try:
                outputs = loaded.model.forward(self.nv12.reshape(-1), **backend.scheduling)
            except Exception as error:
                loaded.failures += 1
                raise BackendError(
                    f"hobot_dnn failed: {_reason(error)} ({loaded.failures} times so far; each may "
                    f"cost one of the device's {_TASKS} tasks until the process ends)"
                ) from error
            answer = np.asarray(outputs[0].buffer)
            if answer.size != backend.classes:
                raise BackendError(
                    f"hobot_dnn answered with shape {answer.shape} for {backend.classes} classes: use "
                    "bpu_runtime libdnn"
                )
            logits: np.ndarray = answer.reshape(-1).astype(np.float32)
        logits *= backend.factor
        return logits

    def close(self) -> None:
        """Nothing outside Python's memory to give back."""


def _open(file: ModelFile, options: BackendOptions) -> HobotDnnBackend:
    return HobotDnnBackend(file.path, options)


RUNTIME = Runtime("hobot_dnn", "bpu", (".bin",), available, version, _open)
