"""NV12 -> logits on the BPU through hbm_runtime, which newer board images bring along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.backends.hobot_dnn import image_size
from repghost_ros.errors import BackendError

_INSTALL = "hbm_runtime is not installed: it comes with newer images of the board"


def available() -> str | None:
    """None where hbm_runtime can be imported, else what to install."""
    try:
        import hbm_runtime  # noqa: F401
    except (ImportError, OSError) as error:
        return f"{_INSTALL} ({error})"
    return None


class HbmRuntimeBackend:
    """A compiled model on the BPU.

    Args:
        path: the .bin or .hbm file.
        core: BPU core, 0 for any.
        priority: of its tasks, 0 to 255.

    Raises:
        BackendError: hbm_runtime is missing, or the file is missing, corrupt, or no NV12 classifier.

    """

    labels: tuple[str, ...] = ()  # compiled models carry none

    def __init__(self, path: Path, *, core: int = 0, priority: int = 0) -> None:
        try:
            from hbm_runtime import HB_HBMRuntime
        except (ImportError, OSError) as error:
            raise BackendError(_INSTALL) from error
        if not path.is_file():
            raise BackendError(f"model file '{path}' does not exist")
        try:
            self.runtime: Any = HB_HBMRuntime(str(path))
            self._read_model(path)
            # Its cores are counted from 0; the node's core 0 leaves the choice to it.
            cores = {"bpu_cores": {self.model: [core - 1]}} if core else {}
            self.runtime.set_scheduling_params(priority={self.model: priority}, **cores)
        except BackendError:
            raise
        except Exception as error:  # the package raises what its C++ threw
            raise BackendError(f"'{path}' cannot be loaded: {error}") from error
        self.name = "hbm_runtime"

    def _read_model(self, path: Path) -> None:
        names = list(self.runtime.model_names)
        if len(names) != 1:
            raise BackendError(f"'{path}' holds {len(names)} models: expected one")
        self.model: str = names[0]
        inputs = list(self.runtime.input_names[self.model])
        outputs = list(self.runtime.output_names[self.model])
        if len(inputs) != 1 or len(outputs) != 1:
            raise BackendError(
                f"'{path}' has {len(inputs)} inputs and {len(outputs)} outputs: expected one NV12 "
                "image and one answer"
            )
        self.input, self.output = inputs[0], outputs[0]
        shape = [int(size) for size in self.runtime.input_shapes[self.model][self.input]]
        layout = "NHWC" if shape[-1] == 3 else "NCHW"
        self.width, self.height = image_size(path, shape, layout)
        shape = self.runtime.output_shapes[self.model][self.output]
        self.classes = int(np.prod([int(size) for size in shape]))

    def open_slot(self) -> HbmRuntimeSlot:
        """A buffer for one worker."""
        return HbmRuntimeSlot(self)

    def close(self) -> None:
        """Let go of the model."""
        self.runtime = None


class HbmRuntimeSlot:
    """One worker's NV12 buffer and the request that names it."""

    def __init__(self, backend: HbmRuntimeBackend) -> None:
        self._backend = backend
        self.nv12 = np.zeros((backend.height * 3 // 2, backend.width), np.uint8)
        self._request = {backend.model: {backend.input: self.nv12.reshape(-1)}}

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`: float32 (classes,).

        Raises:
            BackendError: the BPU failed.

        """
        backend = self._backend
        try:
            answer = backend.runtime.run(self._request)[backend.model][backend.output]
        except Exception as error:
            raise BackendError(f"hbm_runtime failed: {error}") from error
        return np.array(answer, np.float32).reshape(-1)

    def close(self) -> None:
        """Nothing outside Python's memory to give back."""
