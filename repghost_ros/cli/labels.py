# SPDX-License-Identifier: Apache-2.0
"""List a model's classes in index order, as results name them and lists of labels want them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from repghost_ros.classifier import open_model
from repghost_ros.cli.terminal import download_bar
from repghost_ros.zoo.catalogue import DEFAULT

HELP = "list a model's classes"


@dataclass(frozen=True)
class LabelsReport:
    """The names of the classes."""

    model: str
    labels: tuple[str, ...]
    failed = False

    def text(self) -> Iterator[str]:
        """Yield a line per class, which makes a file for --labels."""
        yield from self.labels

    def as_json(self) -> dict[str, Any]:
        """Return one dict per class."""
        results = [{"index": i, "class_id": label} for i, label in enumerate(self.labels)]
        return {"model": self.model, "results": results}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost labels`."""
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT,
        metavar="MODEL",
        help="a model's name or file (default: %(default)s)",
    )
    parser.add_argument(
        "--labels", default="", metavar="FILE", help="file of class names, as the others take it"
    )


def run(options: argparse.Namespace) -> LabelsReport:
    """Open the model, as its file may hold the names."""
    with (
        download_bar(options.model) as progress,
        open_model(options.model, labels_path=options.labels, progress=progress) as model,
    ):
        return LabelsReport(model.name, model.labels)
