"""The models: what the vendor published about them for the RDK X5, and what is in the store."""

from __future__ import annotations

import argparse

from repghost_ros.cli.common import add_json, print_json, print_table
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.store import ModelStore

HELP = "list the models, published figures and what is in the store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost models`."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the catalogue."""
    store = ModelStore()
    weights = {path.name: path.stat().st_size for path in store.entries()}
    if options.json:
        print_json(
            {
                "store": str(store.root),
                "models": [
                    {
                        "name": model.name,
                        "published": vars(model.published),
                        "stored_bytes": {
                            format: weights.get(model.file_name(format))
                            for format in ("bin", "onnx")
                        },
                    }
                    for model in MODELS.values()
                ],
            }
        )
        return 0

    def megabytes(size: int | None) -> str | None:
        return None if size is None else f"{size / 1e6:.1f} MB"

    print_table(
        (
            *("size", "params M", "float top-1 %", "int8 top-1 %", "1 thread ms", "4 threads ms"),
            *("FPS", ".bin here", ".onnx here"),
        ),
        (
            (
                model.name,
                *(f"{value:.2f}" for value in list(vars(model.published).values())[:5]),
                f"{model.published.fps:.0f}",
                *(megabytes(weights.get(model.file_name(format))) for format in ("bin", "onnx")),
            )
            for model in MODELS.values()
        ),
    )
    print(f"\nFigures: published by the RDK model zoo for the RDK X5. Here: {store.root}")
    return 0
