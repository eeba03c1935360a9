# SPDX-License-Identifier: Apache-2.0
"""List the models: figures published for the RDK X5, and which files are in the store."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.report import Table
from repghost_ros.zoo.catalogue import DEMO, MODELS
from repghost_ros.zoo.store import ModelStore

HELP = "list the models, published figures and what is in the store"
_FORMATS = ("bin", "onnx")


@dataclass(frozen=True)
class ModelsReport:
    """The catalogue and the store's content."""

    store: Path
    stored_bytes: dict[str, int]
    """File names and sizes."""
    failed = False

    def text(self) -> Iterator[str | Table]:
        """A table."""
        yield Table(
            ("model", "params M", "float %", "int8 %", "ms", "ms x4", "FPS", ".bin", ".onnx"),
            [
                (
                    model.name,
                    *(f"{value:.2f}" for value in list(vars(model.published).values())[:5]),
                    f"{model.published.fps:.0f}",
                    *(self._megabytes(model.file_name(format)) for format in _FORMATS),
                )
                for model in MODELS.values()
            ]
            + [(DEMO, *(None,) * 7, "built in")],
        )
        yield (
            "\nparameters, top-1, latency with one and four threads, and FPS: published by the RDK "
            f"model zoo for the RDK X5\n.bin, .onnx: in {self.store}; '{DEMO}' names road signs"
        )

    def as_json(self) -> dict[str, Any]:
        """One dict per model."""
        return {
            "store": str(self.store),
            "results": [
                {
                    "name": model.name,
                    "published": vars(model.published),
                    "stored_bytes": {
                        format: self.stored_bytes.get(model.file_name(format))
                        for format in _FORMATS
                    },
                }
                for model in MODELS.values()
            ],
        }

    def _megabytes(self, name: str) -> str | None:
        size = self.stored_bytes.get(name)
        return None if size is None else f"{size / 1e6:.1f} MB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no options."""


def run(options: argparse.Namespace) -> ModelsReport:
    """Look into the store."""
    store = ModelStore()
    return ModelsReport(store.root, {path.name: path.stat().st_size for path in store.entries()})
