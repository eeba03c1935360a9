"""NV12 -> logits on the BPU through the vendor's Python package, hobot_dnn (pyeasy_dnn).

Its `forward` holds the GIL until the BPU is done, so workers wait for each other: correct, but not
parallel. libdnn is the faster way to the same device.
"""

from __future__ import annotations

import logging
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.backends.base import DEFAULTS, BackendOptions, Runtime, image_size, why_not
from repghost_ros.errors import BackendError

_log = logging.getLogger(__name__)
_MODULE = "hobot_dnn.pyeasy_dnn"
_INSTALL = "it comes with the board's image (apt install hobot-dnn)"


def available() -> str | None:
    """None where hobot_dnn can be imported, else why not and what to install."""
    return why_not(_MODULE, _INSTALL)


def version() -> str:
    """The version of the package that brought hobot_dnn, empty where it has none."""
    return ", ".join(
        metadata.version(name) for name in metadata.packages_distributions().get("hobot_dnn", [])
    )


class HobotDnnBackend:
    """A compiled model on the BPU.

    Args:
        path: the .bin file.

    Raises:
        BackendError: hobot_dnn is missing, or the file is missing, corrupt, or no NV12 classifier.

    """

    labels: tuple[str, ...] = ()  # compiled models carry none

    def __init__(self, path: Path, options: BackendOptions = DEFAULTS) -> None:
        unusable = available()
        if unusable:
            raise BackendError(unusable)
        from hobot_dnn import pyeasy_dnn

        if not path.is_file():
            raise BackendError(f"model file '{path}' does not exist")
        try:
            models = pyeasy_dnn.load(str(path))
        except Exception as error:  # the package raises what its C++ threw
            raise BackendError(f"'{path}' cannot be loaded: {error}") from error
        if len(models) != 1:
            raise BackendError(f"'{path}' holds {len(models)} models: expected one")
        self.model: Any = models[0]
        self.runtime = "hobot_dnn"
        self.lock = threading.Lock()
        if len(self.model.inputs) != 1 or len(self.model.outputs) != 1:
            raise BackendError(f"'{path}' is no classifier: expected one input and one output")
        image = self.model.inputs[0].properties
        if "NV12" not in str(image.tensor_type).upper():
            raise BackendError(
                f"the input of '{path}' is {image.tensor_type}: expected NV12; compile the model "
                "with input_type_rt: nv12"
            )
        shape = [int(size) for size in image.shape]
        self.width, self.height = image_size(path, shape, channels_last=str(image.layout) == "NHWC")
        self.classes = int(np.prod(self.model.outputs[0].properties.shape))
        _log.warning("hobot_dnn holds Python's lock while the BPU works: more workers do not help")

    def open_slot(self) -> HobotDnnSlot:
        """A buffer for one worker."""
        return HobotDnnSlot(self)

    def close(self) -> None:
        """Let go of the model."""
        self.model = None


class HobotDnnSlot:
    """One worker's NV12 buffer."""

    def __init__(self, backend: HobotDnnBackend) -> None:
        self._backend = backend
        self.nv12 = np.zeros((backend.height * 3 // 2, backend.width), np.uint8)

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`: float32 (classes,).

        Raises:
            BackendError: the BPU failed.

        """
        try:
            # The package says nothing of calls from several threads: one at a time.
            with self._backend.lock:
                outputs = self._backend.model.forward(self.nv12.reshape(-1))
                logits = np.array(outputs[0].buffer, np.float32).reshape(-1)
        except Exception as error:
            raise BackendError(f"hobot_dnn failed: {error}") from error
        return logits

    def close(self) -> None:
        """Nothing outside Python's memory to give back."""


RUNTIME = Runtime("hobot_dnn", "bpu", (".bin",), available, version, HobotDnnBackend)
