"""NV12 -> logits with ONNX Runtime: what the board does in hardware, on any PC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.backends.base import (
    DEFAULTS,
    BackendOptions,
    Runtime,
    SingleSlot,
    load_module,
    why_not,
)
from repghost_ros.errors import BackendError
from repghost_ros.vision.nv12 import to_rgb
from repghost_ros.zoo.catalogue import MEAN, SCALE

LABELS_KEY = "labels"
"""Metadata: the class names, one a line."""
COLOR_RANGE_KEY = "color_range"
"""Metadata of a model with its preprocessing folded in: the range of the NV12 that it takes."""


def library() -> Any:
    """The onnxruntime package.

    Raises:
        BackendError: it is not installed, or broken.

    """
    return load_module("onnxruntime", install="pip install onnxruntime")


def available() -> str | None:
    """None where ONNX Runtime can be imported, else why not and what to install."""
    return why_not(library)


def version() -> str:
    """ONNX Runtime's own version."""
    told: str = library().__version__
    return told


class OnnxBackend:
    """A float classifier (RGB input, ImageNet normalisation), fed NV12 like the board.

    A model that `repghost export --fold-preprocess` made takes the NV12 itself.

    Args:
        path: the .onnx file.
        options: `color_range` and `onnx_threads` are read.

    Raises:
        BackendError: ONNX Runtime is missing, or the file is missing, corrupt or no such model.

    """

    batch = 1

    def __init__(self, path: Path, options: BackendOptions = DEFAULTS) -> None:
        onnxruntime = library()
        if not path.is_file():
            raise BackendError(f"model file '{path}' does not exist")
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.onnx_threads
        session_options.inter_op_num_threads = 1
        # Idle workers must not burn a core: ONNX Runtime's own pool spins by default.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session_options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(path), session_options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many unrelated types
            raise BackendError(
                f"ONNX Runtime cannot load '{path}': {error}. If it was downloaded, delete it to get "
                "it afresh"
            ) from error
        self.runtime = f"ONNX Runtime {version()}"
        self.color_range = options.color_range
        self._metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.labels = tuple(self._metadata.get(LABELS_KEY, "").splitlines())
        self._read_input(path)
        self._read_output(path)

    def _read_input(self, path: Path) -> None:
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise BackendError(f"'{path}' has {len(inputs)} inputs, a classifier has one image")
        image = inputs[0]
        shape = image.shape
        self.input_name: str = image.name
        self.takes_nv12 = image.type == "tensor(uint8)" and len(shape) == 2
        if self.takes_nv12:
            self._read_folded(path, shape)
            return
        batch_is_one = len(shape) == 4 and (shape[0] == 1 or not isinstance(shape[0], int))
        if image.type != "tensor(float)" or not batch_is_one:
            raise BackendError(
                f"input '{image.name}' of '{path}' is {image.type} {shape}: expected one float "
                "image, 1x3xHxW or 1xHxWx3"
            )
        self.channels_first = shape[1] == 3
        height, width = shape[2:] if self.channels_first else shape[1:3]
        if not self.channels_first and shape[3] != 3:
            raise BackendError(f"input '{image.name}' of '{path}' has no RGB channels: {shape}")
        if not (isinstance(height, int) and isinstance(width, int)):
            raise BackendError(
                f"input '{image.name}' of '{path}' has no fixed size: {shape}; export it with one"
            )
        if height % 2 or width % 2:
            raise BackendError(f"'{path}' wants {width}x{height}: NV12 needs even sizes")
        self.height: int = height
        self.width: int = width
        self.input_shape: tuple[int, ...] = (
            (1, 3, height, width) if self.channels_first else (1, height, width, 3)
        )

    def _read_folded(self, path: Path, shape: list[int]) -> None:
        own = self._metadata.get(COLOR_RANGE_KEY)
        if own != self.color_range:
            raise BackendError(
                f"'{path}' was made for NV12 of the range '{own}': set color_range to that"
            )
        rows, self.width = shape
        self.height = rows // 3 * 2
        self.input_shape = (rows, self.width)

    def _read_output(self, path: Path) -> None:
        outputs = self.session.get_outputs()
        if len(outputs) != 1:
            raise BackendError(f"'{path}' has {len(outputs)} outputs, a classifier has one")
        self.output_names: list[str] = [outputs[0].name]
        # One run tells the true output shape, however symbolic the graph, and warms the model up.
        kind = np.uint8 if self.takes_nv12 else np.float32
        logits = self.run(np.zeros(self.input_shape, kind))
        if logits.ndim < 2 or logits.shape[0] != 1 or logits.size != max(logits.shape):
            raise BackendError(f"output of '{path}' has shape {logits.shape}: expected 1xCLASSES")
        self.classes: int = logits.size
        if self.labels and len(self.labels) != self.classes:
            raise BackendError(
                f"'{path}' carries {len(self.labels)} labels for {self.classes} classes: export it "
                "again"
            )

    def run(self, image: np.ndarray) -> np.ndarray:
        """The model's raw output for one input: a normalised float32 image, or uint8 NV12.

        Raises:
            BackendError: ONNX Runtime failed.

        """
        try:
            output: np.ndarray = self.session.run(self.output_names, {self.input_name: image})[0]
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        return output

    def open_slot(self) -> OnnxSlot:
        """Buffers for one worker."""
        return OnnxSlot(self) if self.takes_nv12 else NormalisingSlot(self)

    def close(self) -> None:
        """Unload the model."""
        self.session = None


class OnnxSlot(SingleSlot):
    """One worker's NV12 buffer."""

    def __init__(self, backend: OnnxBackend) -> None:
        self.backend = backend
        self.nv12 = np.zeros((backend.height * 3 // 2, backend.width), np.uint8)

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`: float32 (classes,)."""
        return self._logits(self.nv12)

    def close(self) -> None:
        """Nothing outside Python's memory to give back."""

    def _logits(self, value: np.ndarray) -> np.ndarray:
        return self.backend.run(value).reshape(-1).astype(np.float32, copy=False)


class NormalisingSlot(OnnxSlot):
    """The same of a model that takes normalised RGB."""

    def __init__(self, backend: OnnxBackend) -> None:
        super().__init__(backend)
        self.image = np.empty(backend.input_shape, np.float32)
        # The image seen as height x width x RGB, whatever the model's layout.
        self.pixels = self.image[0].transpose(1, 2, 0) if backend.channels_first else self.image[0]

    def infer(self) -> np.ndarray:
        """Normalise the RGB of `nv12` and run the model: float32 (classes,)."""
        rgb = to_rgb(self.nv12, self.backend.color_range)
        np.subtract(rgb, np.asarray(MEAN, np.float32), out=self.pixels)
        np.multiply(self.pixels, np.asarray(SCALE, np.float32), out=self.pixels)
        return self._logits(self.image)


RUNTIME = Runtime("onnx", "onnx", (".onnx",), available, version, OnnxBackend)
