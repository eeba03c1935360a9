# SPDX-License-Identifier: Apache-2.0
"""Accuracy over an ImageNet-style folder, of one model, or of two compared.

DIR has one subfolder per class, named by WordNet id, label or index; or give a --val-list. For
unlabelled pictures only the agreement of two models is reported.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from repghost_ros.backends.registry import BACKENDS
from repghost_ros.cli.common import add_model, check_report, model_spec, open_model
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import with_bar
from repghost_ros.engine.model import Model
from repghost_ros.errors import SourceError, UsageError
from repghost_ros.runs.evaluation import (
    Accuracy,
    Prediction,
    Sample,
    accuracy,
    agreement,
    find_samples,
    predict,
    read_val_list,
    write_per_class,
)
from repghost_ros.runs.fleet import open_fleet
from repghost_ros.runs.pages import write_evaluation
from repghost_ros.runs.shards import classify_on
from repghost_ros.runs.shared_model import SharedModel
from repghost_ros.zoo.catalogue import MODELS

HELP = "top-1 and top-5 over a folder, float against quantized"
_SHOWN = 5  # failures and disagreements listed
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalReport:
    """Accuracy of each model, and how often two models agree."""

    rows: list[dict[str, Any]]
    resize: str
    labels: tuple[str, ...]
    pairs: tuple[int, int, list[tuple[Prediction, Prediction]]] | None
    """What `evaluation.agreement` says of two models."""
    failed: bool
    """Whether a picture could not be classified."""

    def text(self) -> Iterator[str | Table]:
        """A table of accuracies, and some of the pictures on which two models differ."""

        def percent(value: float | None) -> str | None:
            return None if value is None else f"{value:.2%}"

        shown = [row for row in self.rows if row["pictures"]]
        if shown:
            yield f"pictures fitted to the model by --resize {self.resize}"
            yield Table(
                (
                    *("model", "backend", "pictures", "top-1", "top-5"),
                    *("published float", "published int8"),
                ),
                [
                    (
                        *(row["model"], row["backend"], row["pictures"]),
                        *(percent(row[key]) for key in ("top1", "top5")),
                        *(percent(row[f"published_{kind}_top1"]) for kind in ("float", "int8")),
                    )
                    for row in shown
                ],
            )
        if self.pairs:
            pictures, same, differing = self.pairs
            yield f"same top-1: {same} of {pictures} ({same / max(1, pictures):.2%})"
            for this, that in differing[:_SHOWN]:
                one, other = (self.labels[each.best[0]] for each in (this, that))
                yield f"  {this.sample.path}: {one} / {other}"

    def as_json(self) -> dict[str, Any]:
        """One dict per model."""
        report: dict[str, Any] = {"resize": self.resize, "results": self.rows}
        if self.pairs:
            report["agreement"] = {"pictures": self.pairs[0], "same_top1": self.pairs[1]}
        return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost eval`."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    add_model(parser, resize="crop")
    parser.add_argument(
        "--against", metavar="MODEL", help="a second model, such as the quantized .bin or .onnx"
    )
    parser.add_argument(
        "--against-backend",
        choices=BACKENDS,
        help="backend of the second one, which may then be the same model (default: --backend; "
        "auto where that is sim)",
    )
    parser.add_argument(
        "--val-list", type=Path, metavar="FILE", help="file with lines PATH CLASS, PATH below DIR"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write predictions.csv, which resumes interrupted runs, and per_class.csv there",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write an .html report: confusion, classes, reliability, most confident mistakes",
    )
    parser.add_argument(
        "--on",
        default="",
        metavar="FLEET",
        help="local (processes of this machine), ray, or ray://HEAD:10001; pictures are found under "
        "the same paths there (default: threads of this process)",
    )


def run(options: argparse.Namespace) -> EvalReport:
    """Evaluate."""
    check_report(options.report)
    runs = {options.model: (options.model, options.backend)}
    if options.against or options.against_backend:
        model = options.against or options.model
        # The simulator is usually compared with the float model, which it cannot run.
        default = "auto" if options.backend == "sim" and options.against else options.backend
        backend = options.against_backend or default
        if (model, backend) in runs.values():
            raise UsageError(f"--against is the same model, '{model}'")
        runs[model if model not in runs else f"{model} on {backend}"] = (model, backend)
    models = list(runs)
    labels: tuple[str, ...] = ()
    predictions: dict[str, list[Prediction]] = {}
    accuracies: dict[str, Accuracy] = {}
    backends = []
    for model, run_on in runs.items():
        classifier = open_model(options, *run_on)
        try:
            if labels and classifier.labels != labels:
                raise SourceError(f"'{model}' has other classes than '{models[0]}'")
            labels = classifier.labels
            samples = (
                read_val_list(options.val_list, options.folder, labels)
                if options.val_list
                else find_samples(options.folder, labels)
            )
            if len(models) == 1 and all(sample.truth is None for sample in samples):
                raise UsageError(
                    f"the pictures in '{options.folder}' are unlabelled (no folder names a class): "
                    "give --against for two models' agreement, or --val-list"
                )
            backends.append(classifier.runtime)
            predictions[model] = _predict(options, classifier, run_on, samples)
        finally:
            classifier.close()
        accuracies[model] = accuracy(predictions[model])
    if options.out and any(each.pictures for each in accuracies.values()):
        write_per_class(options.out / "per_class.csv", labels, accuracies)
    failures = [p for made in predictions.values() for p in made if p.error]
    for failure in failures[:_SHOWN]:
        _log.error("%s: %s", failure.sample.path, failure.error)
    if len(failures) > _SHOWN:
        _log.error("and %d more", len(failures) - _SHOWN)
    rows = [
        _row(model, backend, accuracies[model])
        for model, backend in zip(models, backends, strict=True)
    ]
    pairs = agreement(*predictions.values()) if len(models) == 2 else None
    if options.report:
        write_evaluation(options.report, rows, list(predictions.values()), labels, options.resize)
    return EvalReport(rows, options.resize, labels, pairs, bool(failures))


def _predict(
    options: argparse.Namespace, model: Model, run_on: tuple[str, str], samples: list[Sample]
) -> list[Prediction]:
    """Predict here, or on the fleet that --on names."""
    common = {
        "resize": options.resize,
        "temperature": options.temperature,
        "keep_log_scores": options.report is not None,
        "workers": options.workers,
        "folder": options.out,
        "progress": lambda made, total: with_bar(made, total, "picture"),
    }
    if not options.on:
        return predict(model, samples, **common)
    fleet = open_fleet(options.on, options.workers)
    try:
        sent = SharedModel.of(model, model_spec(options, *run_on), fleet)
        here = partial(
            classify_on, fleet, sent, resize=options.resize, temperature=options.temperature
        )
        return predict(model, samples, **common, classify=here)
    finally:
        fleet.close()


def _row(model: str, backend: str, measured: Accuracy) -> dict[str, Any]:
    published = MODELS[model].published if model in MODELS else None
    return {
        "model": model,
        "backend": backend,
        "pictures": measured.pictures,
        "failed": measured.failed,
        "top1": measured.share(measured.top1),
        "top5": measured.share(measured.top5),
        "published_float_top1": published.float_top1 / 100 if published else None,
        "published_int8_top1": published.int8_top1 / 100 if published else None,
    }
