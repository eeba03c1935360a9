# SPDX-License-Identifier: Apache-2.0
"""Describe a model file: its inputs, color range, classes, how it was made, and where it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.backends.onnx import CHANNEL_ORDER_KEY, MEAN_KEY, SCALE_KEY
from repghost_ros.cli.common import did_you_mean
from repghost_ros.convert.export import OPSET
from repghost_ros.errors import StoreError, UsageError
from repghost_ros.files import check_format, sha256
from repghost_ros.graphs.fusing import is_fused
from repghost_ros.graphs.graph import is_quantized, load, opset
from repghost_ros.zoo.binary import Compiled
from repghost_ros.zoo.catalogue import DEMO, MODEL_NAMES
from repghost_ros.zoo.labels import IMAGENET_CLASSES, labels_for
from repghost_ros.zoo.model_file import ModelFile, read_model_file
from repghost_ros.zoo.onnx_graph import model_bytes
from repghost_ros.zoo.store import ModelStore, is_known, resolve

_FORMATS = ("bin", "onnx")
HELP = "describe a model file and how it was made"
_NAMES = 20  # classes whose names are shown
_SETTINGS = {
    "mean": "MEAN_VALUE",
    "scale": "SCALE_VALUE",
    "calibration": "CALI_TYPE",
    "hb_mapper": "BUILDER_VERSION",
    "hbdk": "HBDK_VERSION",
}
"""What is shown of a .bin's settings -> their names in the file."""


@dataclass(frozen=True)
class InfoReport:
    """The contents of one or more files."""

    files: list[dict[str, Any]]

    @property
    def failed(self) -> bool:
        """True if any of the compiled models cannot run on the RDK X5."""
        return any(model["unfit"] for about in self.files for model in about.get("models", []))

    def text(self) -> Iterator[str]:
        """One line per fact."""
        for number, about in enumerate(self.files):
            if number:
                yield ""
            models = about.get("models", [])
            shown = {key: value for key, value in about.items() if key != "models"}
            yield from _lines(shown)
            for model in models:
                yield from _lines(model)

    def as_json(self) -> dict[str, Any]:
        """One dict per file."""
        return {"results": self.files}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost info`."""
    parser.add_argument(
        "model",
        nargs="+",
        metavar="MODEL",
        help="a .bin or .onnx file, or a model of `repghost models` that is in the store",
    )


def run(options: argparse.Namespace) -> InfoReport:
    """Read the files; nothing is downloaded."""
    return InfoReport([_describe(path) for model in options.model for path in _files(model)])


def _files(model: str) -> list[Path]:
    if not is_known(model):
        path = Path(model)
        if path.suffix.lower() not in (".bin", ".onnx"):
            raise UsageError(
                f"'{model}' is not a model{did_you_mean(model, MODEL_NAMES)}, a .bin or an .onnx"
            )
        return [resolve("", "", model_path=model)]
    if model == DEMO:
        return [resolve(model, format) for format in _FORMATS]
    store = ModelStore()
    found = [path for path in (store.check(model, format) for format in _FORMATS) if path]
    if not found:
        raise StoreError(f"the store has no model {model}: repghost download {model}")
    return found


def _describe(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = {
        "file": str(path),
        "bytes": model_bytes(path),
        "sha256": sha256(path),
    }
    file = read_model_file(path)
    if file.is_onnx:
        described = _describe_onnx(file)
        return {**about, **described, **_describe_own(file, described["classes"])}
    if not file.compiled:
        check_format(path, f"'{path}'")
        note = "what it records cannot be read here: the board's runtime is the judge"
        return {**about, "format": "compiled", "note": note}
    compiled = map(_describe_compiled, file.compiled)
    described_models = [{**model, **_describe_own(file, model["classes"])} for model in compiled]
    return {**about, "format": "compiled", "models": described_models}


def _describe_own(file: ModelFile, classes: object) -> dict[str, Any]:
    """Return what the file records of its classes; a thousand without names are ImageNet's."""
    own = file.own
    labels = own.labels or (labels_for("", IMAGENET_CLASSES) if classes == IMAGENET_CLASSES else ())
    return {
        "labels": len(labels),
        "names": list(labels[:_NAMES]),
        "resize": own.resize,
        "crop_share": own.crop_share,
        "unknown_below": own.unknown_below,
    }


def _describe_compiled(model: Compiled) -> dict[str, Any]:
    settings = model.settings
    return {
        "name": model.name,
        "march": model.march or None,
        "input": {"name": model.inputs[0].name, "shape": model.inputs[0].shape, "layout": "NHWC"},
        "takes_nv12": model.takes_nv12,
        "color_range": model.color_range,
        "output": {"name": model.outputs[0].name, "shape": model.outputs[0].shape},
        "classes": max(model.outputs[0].shape),
        "batch": model.batch,
        **{name: settings.get(key, "").strip(",;") or None for name, key in _SETTINGS.items()},
        "unfit": model.unfit() or None,
    }


def _describe_onnx(file: ModelFile) -> dict[str, Any]:
    model = load(file.path)
    weights = {entry.name for entry in model.graph.initializer}
    images = [_describe_tensor(entry) for entry in model.graph.input if entry.name not in weights]
    answers = [_describe_tensor(entry) for entry in model.graph.output]
    quantized = is_quantized(model)
    return {
        "format": "onnx",
        "inputs": images,
        "takes_nv12": len(images) == 1 and len(images[0]["shape"]) == 2,
        "color_range": file.color_range,
        "outputs": answers,
        "classes": answers[0]["shape"][-1] if answers and answers[0]["shape"] else None,
        **{key: file.onnx.metadata.get(key) for key in (MEAN_KEY, SCALE_KEY, CHANNEL_ORDER_KEY)},
        "opset": opset(model),
        "for_toolchain": opset(model) <= OPSET and not quantized,
        "quantized": quantized,
        "fused": None if quantized else is_fused(model),
    }


def _describe_tensor(tensor: Any) -> dict[str, Any]:
    kind = tensor.type.tensor_type
    shape = [size.dim_value or size.dim_param or "?" for size in kind.shape.dim]
    layout = None
    if len(shape) == 4:
        layout = "NCHW" if shape[1] == 3 else "NHWC"
    return {"name": tensor.name, "shape": shape, "layout": layout}


def _lines(about: dict[str, Any]) -> Iterator[str]:
    width = max(len(name) for name in about)
    for name, value in about.items():
        yield f"{name.replace('_', ' '):<{width}}  {_said(value)}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, dict):
        shape = "x".join(map(str, value["shape"]))
        return " ".join(filter(None, (value["name"], shape, value.get("layout"))))
    return str(value)
