# SPDX-License-Identifier: Apache-2.0
"""An INT8 ONNX by ONNX Runtime's static quantization: the cost of eight bits, seen on a PC.

Not bit-exact with the board, but the same idea: 8-bit weights per channel, 8-bit
activations, ranges from the same calibration tensors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.onnx import CHANNEL_ORDER_KEY, MEAN_KEY, SCALE_KEY, OnnxBackend
from repghost_ros.convert.calibration import Calibration, WrapPictures, spread
from repghost_ros.engine.activation import activation_of
from repghost_ros.engine.results import decision, probabilities
from repghost_ros.errors import ConversionError, FrameError, need
from repghost_ros.graphs.graph import load, save
from repghost_ros.graphs.head import copy_with_metadata
from repghost_ros.output import replacing
from repghost_ros.vision.nv12 import ResizePolicy
from repghost_ros.zoo.model_file import read_model_file
from repghost_ros.zoo.onnx_graph import model_bytes
from repghost_ros.zoo.own import CROP_KEY, RESIZE_KEY, own_of

COMPARED = 200
"""Pictures that float and int8 are compared on, at most."""
_OPSET = 13  # the first with scales per channel
_ROUNDS = 50  # inferences timed of each model


@dataclass(frozen=True)
class Comparison:
    """Float against int8, one thread each."""

    pictures: int
    held_out: bool
    """False where all pictures went into the calibration, which flatters int8."""
    same_top1: int
    """Pictures that both give the same best class."""
    score_drift: float
    """Mean change of the probability of float's best class, 0.0 to 1.0."""
    float_bytes: int
    int8_bytes: int
    float_ms: float
    """Median of one inference."""
    int8_ms: float
    skipped: tuple[tuple[Path, str], ...]
    """Pictures that cannot be read, and why."""


def open_float(path: Path) -> OnnxBackend:
    """Return a model that can be quantized: it takes one normalized 1x3xHxW image of float32.

    Raises:
        ConversionError: it takes something else.
        BackendError: ONNX Runtime is missing, or the file is not a classifier.

    """
    backend = OnnxBackend(path)
    if backend.takes_nv12 or not backend.channels_first or backend.kind != np.float32:
        raise ConversionError(
            f"'{path}' takes {'NV12' if backend.takes_nv12 else _layout(backend)}: quantize the model "
            "that takes 1x3xHxW float32, as `repghost export` writes it"
        )
    return backend


def _layout(backend: OnnxBackend) -> str:
    shape = "x".join(map(str, backend.input_shape))
    return f"{shape} of {np.dtype(backend.kind).name}"


def with_preprocessing(
    source: Path, path: Path, options: BackendOptions, resize: ResizePolicy | None = None
) -> None:
    """Copy a model, and record in the copy what it wants done to its pictures.

    Args:
        source: the .onnx.
        path: the copy; not the source itself.
        options: mean, scale and channel_order are recorded; `preprocessing`, where neither they nor
            the source say more.
        resize: recorded, unless it is None.

    Raises:
        ConversionError: it cannot be quantized.
        DependencyError: onnx is missing.
        BackendError: it cannot be opened, or an option is wrong.
        OutputError: the copy cannot be written.

    """
    model = load(source)
    backend = OnnxBackend(source, options)
    order = slice(None, None, -1 if backend.is_bgr else 1)
    recorded = {entry.key: entry.value for entry in model.metadata_props}
    for key, values in ((MEAN_KEY, backend.mean), (SCALE_KEY, backend.scale)):
        recorded[key] = ",".join(map(str, values[order]))
    recorded[CHANNEL_ORDER_KEY] = "bgr" if backend.is_bgr else "rgb"
    recorded[CROP_KEY] = str(own_of(recorded).fit(options.preprocessing).crop_share)
    if resize:
        recorded[RESIZE_KEY] = resize
    save(copy_with_metadata(model, recorded), path)


def normalize(rgb: np.ndarray, backend: OnnxBackend) -> np.ndarray:
    """Return a tensor of `calibration` as the model's input: float32 (1, 3, height, width)."""
    image = np.empty(backend.input_shape, np.float32)
    backend.normalize(rgb.transpose(1, 2, 0), image)
    return image


def quantize(model: Path, calibration: Calibration, out: Path) -> Path:
    """Write OUT/MODEL_int8.onnx, which runs like the float model and keeps its labels.

    Activations are uint8: as accurate as int8 and faster on x86.

    Raises:
        ConversionError: the model cannot be quantized.
        DependencyError: onnx or ONNX Runtime is missing.
        BackendError: the model is not a classifier.

    """
    onnx = need("onnx", "pip install onnx")
    quantization = need("onnxruntime.quantization", "pip install onnxruntime")
    shapes = need("onnxruntime.quantization.shape_inference", "pip install onnxruntime")
    backend = open_float(model)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """One tensor in memory at a time."""

        def __init__(self) -> None:
            self._images = images(calibration, backend)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {backend.input_name: image}

    path = out / f"{model.stem}_int8.onnx"
    with tempfile.TemporaryDirectory(prefix="repghost_quantize_") as scratch:
        prepared = str(Path(scratch) / "prepared.onnx")
        try:
            onnx.save(_with_channel_scales(load(model)), prepared)
            shapes.quant_pre_process(prepared, prepared, skip_symbolic_shape=True)
            with replacing(path) as partial:
                quantization.quantize_static(
                    prepared,
                    str(partial),
                    Reader(),
                    quant_format=quantization.QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                )
        except Exception as error:  # the converter and the quantizer raise many unrelated types
            raise ConversionError(f"'{model}' cannot be quantized: {error}") from error
    return path


def compare_precisions(
    model: Path,
    int8: Path,
    calibration: Calibration,
    progress: WrapPictures = lambda items, _: items,
) -> Comparison:
    """Run both models on held-out pictures, or else on the calibration pictures.

    Args:
        model: the float .onnx.
        int8: made from it.
        calibration: lists the pictures.
        progress: wraps the iteration over the pictures.

    Raises:
        ConversionError: none of the pictures can be read.
        BackendError: a model cannot be run, or a logit is not a number.

    """
    backends = open_float(model), OnnxBackend(int8)
    activation = activation_of(read_model_file(model), backends[0])
    pictures = spread(calibration.held_out or calibration.pictures, COMPARED)
    skipped, same, drifts = [], 0, []
    for path in progress(pictures, len(pictures)):
        try:
            image = normalize(calibration.see(path), backends[0])
        except (FrameError, OSError) as error:
            skipped.append((path, str(error)))
            continue
        of_float, of_int8 = (
            probabilities(backend.run(image).reshape(-1), activation) for backend in backends
        )
        best = int(of_float.argmax())
        same += decision(of_int8) == decision(of_float)
        drifts.append(abs(of_float[best] - of_int8[best]))
    if not drifts:
        raise ConversionError(f"no picture is left to compare on, such as {skipped[0][1]}")
    float_ms, int8_ms = _latencies(backends, image)
    return Comparison(
        pictures=len(drifts),
        held_out=bool(calibration.held_out),
        same_top1=same,
        score_drift=float(np.mean(drifts)),
        float_bytes=model_bytes(model),
        int8_bytes=model_bytes(int8),
        float_ms=float_ms,
        int8_ms=int8_ms,
        skipped=tuple(skipped),
    )


def images(calibration: Calibration, backend: OnnxBackend) -> Iterator[np.ndarray]:
    """Yield the calibration's tensors as a model's inputs."""
    for tensor in calibration.tensors:
        yield normalize(calibration.read(tensor), backend)


def _with_channel_scales(model: Any) -> Any:
    """Return the model converted to an opset that supports per-channel quantization."""
    onnx = need("onnx", "pip install onnx")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return model if opset >= _OPSET else onnx.version_converter.convert_version(model, _OPSET)


def _latencies(backends: tuple[OnnxBackend, ...], image: np.ndarray) -> list[float]:
    """Median milliseconds of each, measured in turn so that other load affects all equally."""
    times: list[list[float]] = [[] for _ in backends]
    for _ in range(_ROUNDS):
        for backend, taken in zip(backends, times, strict=True):
            started = perf_counter()
            backend.run(image)
            taken.append((perf_counter() - started) * 1e3)
    return [median(taken) for taken in times]
