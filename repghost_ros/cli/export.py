# SPDX-License-Identifier: Apache-2.0
"""Export a network from timm or a checkpoint to fused ONNX, checked against the original.

Without --out it goes into the store, where the node finds it: `repghost export 150`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import did_you_mean
from repghost_ros.errors import UsageError
from repghost_ros.files import move
from repghost_ros.graphs.graph import load as load_graph
from repghost_ros.graphs.graph import save
from repghost_ros.output import named_errors
from repghost_ros.vision.nv12 import COLOR_RANGES
from repghost_ros.zoo.catalogue import DEMO, MODELS, preprocessing_of
from repghost_ros.zoo.labels import IMAGENET_CLASSES, read_labels
from repghost_ros.zoo.own import CROP_KEY, LABELS_KEY
from repghost_ros.zoo.store import ModelStore, resolve

HELP = "make fused ONNX models from timm's or the authors' weights"


@dataclass(frozen=True)
class ExportReport:
    """The file that was written, and how exactly it answers."""

    about: dict[str, Any]
    """model, path, bytes; of what was made from weights, the fields of convert.export.Exported too."""
    failed = False

    def text(self) -> Iterator[str]:
        """Yield the file, and the changes made by fusing."""
        about = self.about
        yield f"{about['path']}: {about['bytes'] / 1e6:.2f} MB"
        if "parameters" in about:
            yield (
                f"parameters: {about['parameters']:,}, fused: {about['fused_parameters']:,} "
                f"({_published(about['model'])})\n"
                f"largest change of a logit, relative to the largest logit: fused "
                f"{about['fusing_drift']:.1e}, as ONNX {about['onnx_drift']:.1e}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the one file."""
        return {"results": [self.about]}


def _published(model: str) -> str:
    figures = MODELS[model].published
    return f"published: {figures.params_m} M" if figures else "the model zoo publishes none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost export`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"a network that timm has (`repghost models`); with --fold-preprocess also {DEMO} or an "
        ".onnx file",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help=".pth or .safetensors in timm's or the authors' layout (default: timm downloads its own)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="class names of your own model, one per line, stored in the .onnx",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the .onnx to write (default: into the store)"
    )
    parser.add_argument(
        "--fold-preprocess",
        action="store_true",
        help="put NV12 -> RGB -> normalization into the graph (for ONNX Runtime only)",
    )
    parser.add_argument(
        "--color-range",
        choices=COLOR_RANGES,
        default="full",
        help="range of the folded model's NV12 input (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> ExportReport:
    """Write the model."""
    is_size = options.model in MODELS
    if not is_size and not (options.fold_preprocess and options.checkpoint is None):
        raise UsageError(
            f"'{options.model}' is not a model{did_you_mean(options.model, MODELS)}; models of your "
            "own can only be given --fold-preprocess"
        )
    if options.fold_preprocess and options.out is None:
        raise UsageError("--fold-preprocess needs --out FILE")
    if options.out is not None and options.out.suffix.lower() != ".onnx":
        raise UsageError(f"'{options.out}' must end in .onnx")
    about: dict[str, Any] = {"model": options.model}
    with tempfile.TemporaryDirectory(prefix="repghost_export_") as scratch:
        if is_size:
            from repghost_ros.convert.export import export, timm_network

            source = Path(scratch) / "fused.onnx"
            model = timm_network(options.model, options.checkpoint)
            labels = _labels(options, model.num_classes)
            metadata = {CROP_KEY: str(preprocessing_of(options.model).crop_share)}
            if labels:
                metadata[LABELS_KEY] = "\n".join(labels)
            about |= asdict(export(model, source, metadata=metadata))
        else:
            given = "" if options.model == DEMO else options.model
            source = resolve(DEMO, "onnx", model_path=given)
        if options.fold_preprocess:
            from repghost_ros.convert.folding import fold_preprocess

            preprocessing = preprocessing_of(options.model)
            save(
                fold_preprocess(load_graph(source), options.color_range, preprocessing), options.out
            )
            path = options.out
        elif options.out is not None:
            with named_errors(options.out):
                options.out.parent.mkdir(parents=True, exist_ok=True)
                move(source, options.out)
            path = options.out
        else:
            path = ModelStore().adopt(options.model, "onnx", source)
    about |= {"path": str(path), "bytes": path.stat().st_size}
    return ExportReport(about)


def _labels(options: argparse.Namespace, classes: int) -> tuple[str, ...]:
    if options.labels is None and classes == IMAGENET_CLASSES:
        return ()
    if options.out is None:
        raise UsageError("a model of your own classes needs --out FILE: the store's are ImageNet's")
    if options.labels is None:
        raise UsageError(
            f"the model has {classes} classes, not ImageNet's: name them with --labels"
        )
    return read_labels(options.labels, classes)
