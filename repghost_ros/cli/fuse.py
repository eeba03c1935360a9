# SPDX-License-Identifier: Apache-2.0
"""Fuse the branches of an .onnx model into single convolutions: same answers, faster.

IN.onnx is a model as trained and published, such as the model zoo's. The result is compared with
it on random inputs, and on pictures if given, and kept only if both agree.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.convert.calibration import see, spread
from repghost_ros.convert.quantization import normalize, open_float
from repghost_ros.errors import FrameError, UsageError
from repghost_ros.graphs.fusing import Fused, fuse_file
from repghost_ros.graphs.graph import load
from repghost_ros.sources.pictures import VIDEOS, find
from repghost_ros.zoo.model_file import read_model_file

HELP = "fuse the branches of an .onnx model"
_PICTURES = 20  # most pictures to compare on
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FuseReport:
    """The written file, and how closely it matches the original."""

    fused: Fused
    failed = False

    def text(self) -> Iterator[str]:
        """Yield the changes made by fusing."""
        fused = self.fused
        yield (
            f"{fused.path}: {fused.nodes_before} -> {fused.nodes} nodes, "
            f"{fused.parameters_before:,} -> {fused.parameters:,} parameters"
        )
        if fused.nodes == fused.nodes_before:
            yield "there was nothing to fuse"
        yield (
            f"largest change of a logit on {fused.inputs} inputs, relative to the largest logit: "
            f"{fused.drift:.1e}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the one file."""
        return {"results": [{**asdict(self.fused), "path": str(self.fused.path)}]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost fuse`."""
    parser.add_argument("source", type=Path, metavar="IN.onnx")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help=f"also compare on up to {_PICTURES} of these pictures",
    )


def run(options: argparse.Namespace) -> FuseReport:
    """Write the fused model."""
    if options.out.suffix.lower() != ".onnx":
        raise UsageError(f"'{options.out}' must end in .onnx")
    load(options.source)  # its errors about invalid models are clearer than ONNX Runtime's
    pictures = list(_pictures(options.source, options.pictures)) if options.pictures else []
    return FuseReport(fuse_file(options.source, options.out, pictures))


def _pictures(model: Path, folder: Path) -> Iterator[np.ndarray]:
    """Pictures as the model sees them on the board."""
    backend, fit = open_float(model), read_model_file(model).own.fit()
    paths = [path for path in find([folder]) if path.suffix.lower() not in VIDEOS]
    for path in spread(paths, _PICTURES):
        try:
            yield normalize(see(path, backend.height, backend.width, fit=fit), backend)
        except (FrameError, OSError) as error:
            _log.warning("'%s' was left out: %s", path, error)
