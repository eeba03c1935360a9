# SPDX-License-Identifier: Apache-2.0
"""Teach own classes to a classifier: a new head on its features, without torch; or the whole network.

DIR has a subfolder of pictures for each class, at least five in each; `nothing` is for pictures that
show none of the others. The model is measured on pictures that it was not trained with. The class
names, how pictures are fitted to the input, and the score below which the answer is `unknown` are in
OUT.onnx, and the node uses them.

--finetune trains the whole network on from there, with torch, and reports both. Interrupted, the next
run with the same pictures goes on from OUT.finetune.pt.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import check_report, did_you_mean, fraction, positive
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import download_bar, with_bar
from repghost_ros.errors import UsageError, need
from repghost_ros.teach.finetuning import Recipe, finetune
from repghost_ros.teach.labeled import read_labeled
from repghost_ros.teach.measures import wilson
from repghost_ros.teach.page import write_teaching_page
from repghost_ros.teach.teaching import RESIZES, Measured, Taught, read_trunk, teach, write_model
from repghost_ros.teach.trainable import INSTALL
from repghost_ros.zoo.catalogue import DEFAULT, MODELS, preprocessing_of
from repghost_ros.zoo.store import resolve

_log = logging.getLogger(__name__)
HELP = "teach a classifier your own classes, from a folder of pictures"
_SHOWN = 5  # pictures that may be labeled wrong


@dataclass(frozen=True)
class TeachReport:
    """The written model, and how good it is."""

    taught: Taught
    out: Path
    page: Path | None
    failed = False

    def text(self) -> Iterator[str | Table]:
        """Yield the accuracy, the classes, and what would improve them."""
        taught = self.taught
        about = taught.as_json()
        yield Table(
            ("class", "pictures", "measured", "right"),
            [tuple(row.values()) for row in about["classes"]],
        )
        yield f"held-out pictures: {_words(taught.held_out)}"
        if taught.alone is None:
            yield f"cross-validated on the others: {_words(taught.validated)}"
        else:
            yield f"those that decided when to stop: {_words(taught.validated)}"
            yield f"the head alone, held-out pictures: {_words(taught.alone.held_out)}"
            yield f"the head alone, cross-validated: {_words(taught.alone.validated)}"
        for name in taught.unmeasured:
            yield f"not measured: {name}: all pictures are of one recording or burst, record another"
        yield (
            f"resize {taught.resize}, unknown below {taught.unknown_below:.2f}, temperature "
            f"{taught.temperature:.2f}, penalty {taught.strength:g}"
        )
        if taught.unlike[1]:
            yield (
                f"without a class 'nothing': {taught.unlike[0]} of {taught.unlike[1]} pictures of a "
                "class that was left out get another one"
            )
        yield _more(taught)
        for doubt in taught.doubts[:_SHOWN]:
            yield f"labeled {doubt.label}, looks like {doubt.answer} ({doubt.score:.0%}): {doubt.path}"
        yield f"model: {self.out}" + (f"\nreport: {self.page}" if self.page else "")

    def as_json(self) -> dict[str, Any]:
        """Return the one result."""
        about = {"model": str(self.out), "report": str(self.page) if self.page else None}
        return {"results": [{**about, **self.taught.as_json()}]}


def _words(measured: Measured) -> str:
    hits, count = int(measured.right.sum()), len(measured.truth)
    if not count:
        return "none"
    low, high = wilson(hits, count)
    said = f"{hits} of {count} right, {hits / count:.1%} ({low:.0%} to {high:.0%} with 95 % confidence)"
    alarms, shown = measured.false_alarms
    return f"{said}, false alarms {alarms} of {shown}" if shown else said


def _more(taught: Taught) -> str:
    curve = taught.curve
    predicted = curve.predicted(2.0) if curve else None
    if curve is None or predicted is None:
        return "more pictures: no trend could be measured"
    return (
        f"more pictures: {curve.accuracy[-1]:.1%} with {curve.pictures[-1]:.0f} a class, "
        f"{predicted:.1%} predicted of twice as many"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `repghost teach`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a subfolder of pictures a class")
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="SIZE|FILE.onnx",
        help=f"of `repghost models`, or an ONNX classifier (default: {DEFAULT})",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.onnx")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a report page")
    parser.add_argument(
        "--held-out",
        type=fraction,
        default=0.2,
        metavar="SHARE",
        help="of the pictures, never trained with, to measure on (default: %(default)s)",
    )
    parser.add_argument(
        "--resize",
        choices=("auto", *RESIZES),
        default="auto",
        help="how pictures are fitted to the input (default: what cross-validation likes better)",
    )
    parser.add_argument(
        "--no-mirror",
        action="store_true",
        help="mirrored pictures show another class, as arrows and letters do",
    )
    parser.add_argument(
        "--finetune",
        action="store_true",
        help="train the whole network after the head; needs torch",
    )
    parser.add_argument(
        "--epochs",
        type=positive,
        default=Recipe.epochs,
        metavar="N",
        help="of --finetune, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default=Recipe.device,
        help="of --finetune (default: a GPU if torch has one)",
    )


def run(options: argparse.Namespace) -> TeachReport:
    """Read the pictures, teach, and write the model."""
    if options.out.suffix.lower() != ".onnx":
        raise UsageError(f"'{options.out}' must end in .onnx")
    if options.held_out > 0.5:
        raise UsageError(f"--held-out {options.held_out} leaves too few pictures to train with")
    check_report(options.report)
    if options.finetune:
        need("torch", INSTALL)
    trunk = read_trunk(_model(options.model), preprocessing_of(options.model))
    labeled = read_labeled(options.folder, _with_bar)
    for path, why in labeled.skipped:
        _log.warning("'%s' was left out: %s", path, why)
    taught = teach(
        trunk,
        labeled,
        base=options.model,
        held_out=options.held_out,
        resize=None if options.resize == "auto" else options.resize,
        mirrors=not options.no_mirror,
        work=_with_bar,
    )
    if options.finetune:
        taught = finetune(
            trunk,
            taught,
            Recipe(epochs=options.epochs, device=options.device),
            held_out=options.held_out,
            mirrors=not options.no_mirror,
            state=options.out.with_suffix(".finetune.pt"),
            step=_log.info,
            work=_with_bar,
        )
    write_model(taught, options.out)
    if options.report:
        write_teaching_page(taught, options.out, options.report)
    return TeachReport(taught, options.out, options.report)


def _model(name: str) -> Path:
    if name in MODELS:
        with download_bar(name) as progress:
            return resolve(name, "onnx", progress=progress)
    if Path(name).suffix.lower() != ".onnx":
        raise UsageError(f"'{name}' is not a model{did_you_mean(name, MODELS)}, or an .onnx file")
    return resolve("", "onnx", model_path=name)


def _with_bar(items: Iterable[Any], total: int) -> Iterable[Any]:
    return with_bar(items, total, "picture")
