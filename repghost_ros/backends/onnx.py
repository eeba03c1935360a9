# SPDX-License-Identifier: Apache-2.0
"""NV12 -> logits with ONNX Runtime: what the board does in hardware, on any PC."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
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
from repghost_ros.zoo.labels import parse_labels
from repghost_ros.zoo.model_file import (
    COLOR_RANGE_KEY,
    ModelFile,
    choose_color_range,
    recorded_range,
)
from repghost_ros.zoo.onnx_graph import model_files
from repghost_ros.zoo.own import LABELS_KEY

"""Metadata: the class names, one a line."""
NAMES_KEY = "names"
"""Metadata as other exporters have it: the class names as a dict by index."""
MEAN_KEY, SCALE_KEY, CHANNEL_ORDER_KEY = "mean", "scale", "channel_order"
"""Metadata: preprocessing other than ImageNet's, as in BackendOptions; numbers divided by commas."""


SIZE_KEY, TASK_KEY = "imgsz", "task"
"""Metadata of Ultralytics: the input's height and width, and what the model is for."""
_log = logging.getLogger(__name__)


def library() -> Any:
    """Import onnxruntime.

    Raises:
        BackendError: it is not installed, or broken.

    """
    return load_module("onnxruntime", install="pip install onnxruntime")


def available() -> str | None:
    """None if ONNX Runtime can be imported, else why not and what to install."""
    return why_not(library)


def version() -> str:
    """ONNX Runtime's own version."""
    version: str = library().__version__
    return version


_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""Types of image inputs; one of uint8 is given the pixels as they are."""
_REMOTE = "AzureExecutionProvider"


def providers(wanted: Sequence[str], offered: Sequence[str]) -> list[str]:
    """ONNX Runtime's execution provider names, the best first, the CPU last.

    Args:
        wanted: such as `cuda`, `CUDAExecutionProvider`; `auto` means all that are offered.
        offered: by the installed ONNX Runtime, the best first.

    Raises:
        BackendError: a wanted provider is not offered.

    """
    known = {name.removesuffix("ExecutionProvider").lower(): name for name in offered}
    chosen: list[str] = []
    for name in (name.strip() for name in wanted):
        key = name.lower().removesuffix("executionprovider")
        if key in ("auto", ""):
            chosen += [name for name in offered if name != _REMOTE]
        elif key in known:
            chosen.append(known[key])
        else:
            raise BackendError(
                f"onnx_providers: the installed ONNX Runtime has no '{name}', it offers "
                f"{', '.join(known)}: install the onnxruntime package that has it (onnxruntime-gpu, "
                "onnxruntime-openvino)"
            )
    cpu = "CPUExecutionProvider"
    return [*dict.fromkeys(name for name in chosen if name != cpu), cpu]


def _is_rgb(axis: object) -> bool:
    """Return whether an axis can be that of three channels."""
    return axis == 3 or not isinstance(axis, int)


def _remedy(path: Path, error: str) -> str:
    """Return what to do about a model that ONNX Runtime does not load."""
    if re.search(r"IR version|opset|till opset|is not a registered function/op", error):
        return (
            f"It is newer than the installed ONNX Runtime {version()}: pip install --upgrade "
            "onnxruntime, or export it with a lower opset"
        )
    missing = [str(file) for file in model_files(path) if not file.is_file()]
    if missing:
        return f"Its weights are missing: put {', '.join(missing)} there"
    return "If it was downloaded, delete it to get it afresh"


class OnnxBackend:
    """A classifier fed NV12 like the board; it takes RGB, with ImageNet's normalization by default.

    A model that `repghost export --fold-preprocess` made takes the NV12 itself.

    Args:
        path: the .onnx file.
        options: all except the BPU's are read.

    Raises:
        BackendError: ONNX Runtime is missing, or the file is missing, corrupt or not such a model.

    """

    batch = 1

    def __init__(self, path: Path, options: BackendOptions = DEFAULTS) -> None:
        onnxruntime = library()
        if not path.is_file():
            raise BackendError(f"model file '{path}' does not exist")
        wanted = providers(options.onnx_providers, onnxruntime.get_available_providers())
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.onnx_threads
        session_options.inter_op_num_threads = 1
        # Idle workers must not burn a core: ONNX Runtime's own pool spins by default.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session_options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(path), session_options, providers=wanted
            )
        except Exception as error:  # ONNX Runtime raises many unrelated types
            raise BackendError(
                f"ONNX Runtime cannot load '{path}': {error}. {_remedy(path, str(error))}"
            ) from error
        used = self.session.get_providers()
        if "auto" not in options.onnx_providers and used[0] != wanted[0]:
            raise BackendError(
                f"onnx_providers: {wanted[0]} cannot be used here, its libraries or its device are "
                f"missing: ONNX Runtime fell back to {used[0]}"
            )
        self.runtime = f"ONNX Runtime {version()}/{used[0].removesuffix('ExecutionProvider')}"
        self._metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        recorded = recorded_range(self._metadata.get(COLOR_RANGE_KEY))
        self.color_range = choose_color_range(path, recorded, options.color_range)
        names = self._metadata.get(LABELS_KEY) or self._metadata.get(NAMES_KEY, "")
        try:
            self.labels = parse_labels(names)
        except ValueError as error:
            raise BackendError(f"the labels in '{path}' cannot be read: {error}") from error
        self._options = options
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
        if image.type not in _KINDS or not batch_is_one:
            raise BackendError(
                f"input '{image.name}' of '{path}' is {image.type} {shape}: expected one image, "
                "1x3xHxW or 1xHxWx3, of float, float16 or uint8"
            )
        self.kind = _KINDS[image.type]
        self.channels_first = _is_rgb(shape[1]) and shape[3] != 3
        if not (self.channels_first or _is_rgb(shape[3])):
            raise BackendError(f"input '{image.name}' of '{path}' has no RGB channels: {shape}")
        height, width = shape[2:] if self.channels_first else shape[1:3]
        if not (isinstance(height, int) and isinstance(width, int)):
            height, width = self._recorded_size(path, image.name, shape)
        # NV12 has even sides: for an odd input the last row or column of pixels is cropped.
        self.height: int = height + height % 2
        self.width: int = width + width % 2
        self.input_shape: tuple[int, ...] = (
            (1, 3, height, width) if self.channels_first else (1, height, width, 3)
        )
        self._read_preprocessing(path)

    def _recorded_size(self, path: Path, name: str, shape: Sequence[Any]) -> tuple[int, int]:
        """Return the height and width that Ultralytics records of a model with dynamic axes."""
        sides = [int(side) for side in re.findall(r"\d+", self._metadata.get(SIZE_KEY, ""))]
        if len(sides) not in (1, 2) or not all(sides):
            raise BackendError(
                f"input '{name}' of '{path}' has no fixed size: {list(shape)}; export it with one, or "
                f"record it: repghost_ros reads the metadata '{SIZE_KEY}', such as [224, 224]"
            )
        return sides[0], sides[-1]

    def _read_preprocessing(self, path: Path) -> None:
        """Take mean, scale and channel order from the options, else the metadata, else the record."""
        plain, usual = self.kind is np.uint8, self._options.preprocessing
        task = self._metadata.get(TASK_KEY, "classify")
        if task != "classify":
            raise BackendError(f"'{path}' is a model to {task}, not a classifier")
        if self._metadata.get("author", "").lower() == "ultralytics":
            usual = replace(usual, mean=(0.0,) * 3, scale=(1 / 255,) * 3)
            if not (self._options.mean or self._options.scale):
                _log.info("'%s' is of Ultralytics: it gets pixels from 0 to 1", path.name)
        elif "std" in self._metadata and not (self._options.mean or self._options.scale):
            raise BackendError(
                f"'{path}' records mean '{self._metadata.get(MEAN_KEY)}' and std "
                f"'{self._metadata['std']}', but not for which range of pixels: give mean and scale, "
                "for pixels from 0 to 255 (scale is 1 / std, for pixels from 0 to 1 1 / (255 * std))"
            )
        self.mean = self._numbers(path, "mean", MEAN_KEY, (0.0,) * 3 if plain else usual.mean)
        self.scale = self._numbers(path, "scale", SCALE_KEY, (1.0,) * 3 if plain else usual.scale)
        order = self._options.channel_order
        if order == "auto":
            order = self._metadata.get(CHANNEL_ORDER_KEY, "rgb").strip().lower()  # type: ignore[assignment]
        if order not in ("rgb", "bgr"):
            raise BackendError(f"channel_order of '{path}' cannot be '{order}': it is rgb or bgr")
        self.is_bgr = order == "bgr"
        if self.is_bgr:  # mean and scale are those of R, G, B
            self.mean, self.scale = self.mean[::-1], self.scale[::-1]

    def _numbers(
        self, path: Path, name: str, key: str, default: tuple[float, float, float]
    ) -> np.ndarray:
        values: Sequence[float] = getattr(self._options, name)
        text = self._metadata.get(key, "")
        try:
            values = values or [
                float(number) for number in text.strip("[]() ").replace(",", " ").split()
            ]
        except ValueError:
            values = ()
        if not values and text:
            raise BackendError(
                f"{name} in the metadata of '{path}' is not a list of numbers: '{text}'"
            )
        values = values or default
        if len(values) not in (1, 3) or not np.isfinite(values).all():
            raise BackendError(
                f"{name} cannot be {list(values)}: give one number, or one each for R, G and B"
            )
        return np.broadcast_to(np.asarray(values, np.float32), 3)

    def normalize(self, rgb: np.ndarray, out: np.ndarray) -> None:
        """Fill an input of the model.

        Args:
            rgb: uint8 (height, width, 3), no smaller than the input.
            out: of `input_shape` and `kind`.

        """
        # The image seen as height x width x channels, whatever the model's layout.
        pixels = out[0].transpose(1, 2, 0) if self.channels_first else out[0]
        rgb = rgb[: pixels.shape[0], : pixels.shape[1]]
        if self.is_bgr:
            rgb = rgb[..., ::-1]
        if self.kind is np.float32:
            np.subtract(rgb, self.mean, out=pixels)
            np.multiply(pixels, self.scale, out=pixels)
        elif self.kind is np.uint8 and not self.mean.any() and (self.scale == 1).all():
            np.copyto(pixels, rgb)
        else:
            np.copyto(pixels, (rgb - self.mean) * self.scale, casting="unsafe")

    def _read_folded(self, path: Path, shape: list[int]) -> None:
        given = (self._options.mean, self._options.scale, self._options.channel_order != "auto")
        if any(map(bool, given)):
            raise BackendError(
                f"'{path}' has its preprocessing in it: leave mean, scale and channel_order as they are"
            )
        rows, self.width = shape
        self.height = rows // 3 * 2
        self.input_shape = (rows, self.width)

    def _read_output(self, path: Path) -> None:
        outputs = self.session.get_outputs()
        if len(outputs) != 1:
            raise BackendError(f"'{path}' has {len(outputs)} outputs, a classifier has one")
        self.output_names: list[str] = [outputs[0].name]
        # One run yields the actual output shape, even of a symbolic graph, and warms the model up.
        kind = np.uint8 if self.takes_nv12 else self.kind
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
        """Return the model's raw output for one input: a normalized image, or uint8 NV12.

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
        return OnnxSlot(self) if self.takes_nv12 else NormalizingSlot(self)

    def close(self) -> None:
        """Unload the model."""
        self.session = None


class OnnxSlot(SingleSlot):
    """One worker's NV12 buffer."""

    def __init__(self, backend: OnnxBackend) -> None:
        super().__init__(backend.height, backend.width)
        self.backend = backend

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`: float32 (classes,)."""
        return self._logits(self.nv12)

    def close(self) -> None:
        """Nothing to release outside Python's memory."""

    def _logits(self, value: np.ndarray) -> np.ndarray:
        return self.backend.run(value).reshape(-1).astype(np.float32, copy=False)


class NormalizingSlot(OnnxSlot):
    """The same for a model that takes normalized RGB."""

    def __init__(self, backend: OnnxBackend) -> None:
        super().__init__(backend)
        self.image = np.empty(backend.input_shape, backend.kind)

    def infer(self) -> np.ndarray:
        """Normalize the RGB of `nv12` and run the model: float32 (classes,)."""
        self.backend.normalize(to_rgb(self.nv12, self.backend.color_range), self.image)
        return self._logits(self.image)


def _open(file: ModelFile, options: BackendOptions) -> OnnxBackend:
    return OnnxBackend(file.path, options)


RUNTIME = Runtime("onnx", "onnx", (".onnx",), available, version, _open)
