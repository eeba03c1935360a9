# SPDX-License-Identifier: Apache-2.0
"""List the models: what is published and predicted for the RDK X5, and which files are in the store.

Figures are those of the RDK model zoo, unless they are said to be predicted. A model on the front (*)
is beaten by no other in both published frames a second and int8 accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.report import Table
from repghost_ros.errors import UsageError
from repghost_ros.zoo.catalogue import DEMO, FAMILIES, MODELS, front
from repghost_ros.zoo.record import Record
from repghost_ros.zoo.store import ModelStore

HELP = "list the models, with published figures and the files in the store"
_FORMATS = ("bin", "onnx")
_SORTS = ("fps", "top1", "params", "name")
_PLOTS = (".png", ".svg", ".pdf")
_LEGEND = """
*: on the front, no other model is both faster and more accurate in int8
M: millions of parameters
float, int8: ImageNet top-1 in percent, published by the RDK model zoo, or (a) by the authors
ms, FPS: latency with one thread, frames a second with four, published for the RDK X5
fused, batch 4: frames a second after `repghost fuse`, singly and in batches of four, predicted by the \
vendor's compiler, no board
bin, onnx: megabytes in {store}
'{demo}', which knows road signs, is built in"""


@dataclass(frozen=True)
class ModelsReport:
    """Some of the catalogue, and the store's content."""

    records: Sequence[Record]
    store: Path
    stored_bytes: dict[str, int]
    """File names and sizes."""
    plot: Path | None
    failed = False

    def text(self) -> Iterator[str | Table]:
        """Yield a table, and the models' oddities."""
        best = front()
        yield Table(
            (
                "",
                "model",
                "family",
                "M",
                "float",
                "int8",
                "ms",
                "FPS",
                "fused",
                "batch 4",
                *_FORMATS,
            ),
            [
                (
                    "*" if record.name in best else "",
                    record.name,
                    record.family,
                    *_published(record),
                    *(_round(record.predicted.fps(batch)) for batch in (1, 4)),
                    *(self._megabytes(record.file_name(format)) for format in _FORMATS),
                )
                for record in self.records
            ],
        )
        yield _LEGEND.format(store=self.store, demo=DEMO)
        for record in self.records:
            if record.remark:
                yield f"{record.name}: {record.remark}"
        if self.plot is not None:
            yield f"plot: {self.plot}"

    def as_json(self) -> dict[str, Any]:
        """Return one dict per model."""
        best = front()
        return {
            "store": str(self.store),
            "plot": str(self.plot) if self.plot else None,
            "results": [
                {
                    **asdict(record),
                    "bin": record.file_name("bin"),
                    "front": record.name in best,
                    "stored_bytes": {
                        format: self.stored_bytes.get(record.file_name(format))
                        for format in _FORMATS
                    },
                }
                for record in self.records
            ],
        }

    def _megabytes(self, name: str) -> str | None:
        size = self.stored_bytes.get(name)
        return None if size is None else f"{size / 1e6:.1f}"


def _published(record: Record) -> tuple[str | None, ...]:
    figures = record.published
    if figures is None:
        own = record.authors_top1
        return (None, None if own is None else f"{own:.2f}a", None, None, None)
    return (
        f"{figures.params_m:.2f}",
        f"{figures.float_top1:.2f}",
        f"{figures.int8_top1:.2f}",
        f"{figures.latency_1_ms:.2f}",
        f"{figures.fps:.0f}",
    )


def _round(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `repghost models`."""
    parser.add_argument(
        "--family", choices=FAMILIES, metavar="NAME", help=f"only of {', '.join(FAMILIES)}"
    )
    parser.add_argument(
        "--at-least-fps",
        type=float,
        default=0.0,
        metavar="FPS",
        help="published frames a second, predicted where none are published",
    )
    parser.add_argument(
        "--at-least-top1",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="published int8 accuracy",
    )
    parser.add_argument("--front", action="store_true", help="only those that no other beats")
    parser.add_argument(
        "--sort", choices=_SORTS, default="fps", help="the best first (default: %(default)s)"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw accuracy over speed: .png, .svg or .pdf"
    )


def run(options: argparse.Namespace) -> ModelsReport:
    """Choose the models, and look into the store."""
    if options.plot is not None and options.plot.suffix.lower() not in _PLOTS:
        raise UsageError(f"'{options.plot}' must end in {', '.join(_PLOTS)}")
    best = front()
    records = [
        record
        for record in MODELS.values()
        if options.family in (None, record.family)
        and (record.fps or 0.0) >= options.at_least_fps
        and _top1(record) >= options.at_least_top1
        and (record.name in best or not options.front)
    ]
    records.sort(key=lambda record: _sort_key(record, options.sort))
    if options.plot is not None:
        from repghost_ros.runs.plots import plot_models

        plot_models(options.plot, records)
    store = ModelStore()
    sizes = {path.name: path.stat().st_size for path in store.entries()}
    return ModelsReport(records, store.root, sizes, options.plot)


def _top1(record: Record) -> float:
    return record.published.int8_top1 if record.published else 0.0


def _sort_key(record: Record, sort: str) -> Any:
    if sort == "name":
        return record.name
    if sort == "params":
        return record.published.params_m if record.published else float("inf")
    return -(_top1(record) if sort == "top1" else record.fps or 0.0)
