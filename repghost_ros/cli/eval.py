# SPDX-License-Identifier: Apache-2.0
"""Accuracy over an ImageNet-style folder, of one model, or of two compared.

DIR has one subfolder per class, named by WordNet id, label or index; or give a --val-list. For
unlabeled pictures only the agreement of two models is reported.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.backends.registry import BACKENDS
from repghost_ros.cli.common import add_model, check_report, model_from
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import with_bar
from repghost_ros.engine.model import Model
from repghost_ros.errors import SourceError, UsageError
from repghost_ros.runs.evaluation import (
    Accuracy,
    Agreement,
    EvalProtocol,
    Evaluated,
    Prediction,
    agreement,
    predict,
    write_per_class,
)
from repghost_ros.runs.fleet import open_fleet
from repghost_ros.runs.pages import write_evaluation
from repghost_ros.runs.samples import (
    Classes,
    Sample,
    find_samples,
    read_class_map,
    read_val_list,
    subfolders,
    unknown_folders,
)
from repghost_ros.vision.view import View
from repghost_ros.zoo.catalogue import MODELS

HELP = "top-1 and top-5 over a folder, float against quantized"
_SHOWN = 5  # failures and disagreements listed
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate, and what it runs on."""

    name: str
    """Shown; tells one model on two backends apart."""
    model: str
    backend: str


@dataclass(frozen=True)
class EvalReport:
    """Accuracy of each model, and how often two models agree."""

    evaluated: list[Evaluated]
    resize: str
    fitting: str
    """The resize policy and its origin, in words."""
    agreement: Agreement | None
    """Of two models."""

    @property
    def failed(self) -> bool:
        """True if a picture could not be classified."""
        return any(prediction.error for model in self.evaluated for prediction in model.predictions)

    def text(self) -> Iterator[str | Table]:
        """Yield a table of accuracies, and some of the pictures on which two models differ."""
        shown = [row for row in map(_row, self.evaluated) if row["pictures"]]
        if shown:
            yield f"resize: {self.fitting}"
            yield Table(
                (
                    *("model", "backend", "pictures", "top-1", "top-5"),
                    *("published float", "published int8"),
                ),
                [
                    (
                        *(row["model"], row["backend"], row["pictures"]),
                        *(_percent(row[key]) for key in ("top1", "top5")),
                        *(_percent(row[f"published_{kind}_top1"]) for kind in ("float", "int8")),
                    )
                    for row in shown
                ],
            )
        if self.agreement:
            pictures, same = self.agreement.pictures, self.agreement.same_top1
            yield f"same top-1: {same} of {pictures} ({same / max(1, pictures):.2%})"
            labels = self.evaluated[0].labels
            for pair in self.agreement.differing[:_SHOWN]:
                one, other = (labels[prediction.best[0]] for prediction in pair)
                yield f"  {pair[0].sample.path}: {one} / {other}"

    def as_json(self) -> dict[str, Any]:
        """Return one dict per model."""
        report: dict[str, Any] = {
            "resize": self.resize,
            "results": [_row(model) for model in self.evaluated],
        }
        if self.agreement:
            report["agreement"] = {
                "pictures": self.agreement.pictures,
                "same_top1": self.agreement.same_top1,
            }
        return report


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _row(evaluated: Evaluated) -> dict[str, Any]:
    measured: Accuracy = evaluated.accuracy
    published = MODELS[evaluated.name].published if evaluated.name in MODELS else None
    return {
        "model": evaluated.name,
        "backend": evaluated.runtime,
        "pictures": measured.pictures,
        "refused": measured.refused,
        "failed": measured.failed,
        "top1": measured.share(measured.top1),
        "top5": measured.share(measured.top5),
        "published_float_top1": published.float_top1 / 100 if published else None,
        "published_int8_top1": published.int8_top1 / 100 if published else None,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost eval`."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    add_model(parser)
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
        "--class-map",
        type=Path,
        metavar="FILE",
        help="CSV with lines FOLDER,CLASS for folders that are not called like their class",
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
    candidates = _candidates(options)
    evaluated: list[Evaluated] = []
    asked = View(resize=options.resize, interpolation=options.interpolation)
    for candidate in candidates:
        with model_from(options, candidate.model, candidate.backend) as model:
            if not evaluated:  # a second model sees the same
                fitting = model.fitting(asked)
                protocol = EvalProtocol(
                    asked.policy(model.resize), options.temperature, options.interpolation
                )
            if evaluated and model.labels != evaluated[0].labels:
                raise SourceError(
                    f"'{candidate.name}' has other classes than '{evaluated[0].name}'"
                )
            if model.classes == 1:  # its best class is always the same one
                raise UsageError(
                    f"'{candidate.name}' has one output, so top-1 says nothing of it: repghost "
                    "classify --json gives the scores to choose a threshold by"
                )
            samples = _samples(options, model, alone=len(candidates) == 1)
            made = _predict(options, protocol, model, samples)
            about = (candidate.name, model.path, model.runtime, model.labels)
            evaluated.append(Evaluated(*about, made))
    _log_errors([p for model in evaluated for p in model.predictions if p.error])
    if options.out and any(model.accuracy.pictures for model in evaluated):
        write_per_class(options.out / "per_class.csv", evaluated)
    if options.report:
        write_evaluation(options.report, evaluated, fitting, options.folder)
    both = agreement(*(model.predictions for model in evaluated)) if len(evaluated) == 2 else None
    return EvalReport(evaluated, protocol.resize, fitting, both)


def _candidates(options: argparse.Namespace) -> list[Candidate]:
    """Return the models to evaluate: one, or two to compare.

    Raises:
        UsageError: the second is the first.

    """
    first = Candidate(options.model, options.model, options.backend)
    if not (options.against or options.against_backend):
        return [first]
    model = options.against or options.model
    # The simulator is usually compared with the float model, which it cannot run.
    default = "auto" if options.backend == "sim" and options.against else options.backend
    backend = options.against_backend or default
    if (model, backend) == (first.model, first.backend):
        raise UsageError(f"--against is the same model, '{model}'")
    return [
        first,
        Candidate(model if model != first.model else f"{model} on {backend}", model, backend),
    ]


def _samples(options: argparse.Namespace, model: Model, *, alone: bool) -> list[Sample]:
    """Return the pictures to classify.

    Args:
        options: the command line.
        model: whose classes name folders.
        alone: whether one model is evaluated, which needs labeled pictures.

    """
    aliases = read_class_map(options.class_map) if options.class_map else {}
    classes = Classes(model.labels, aliases)
    if options.val_list:
        return read_val_list(options.val_list, options.folder, classes)
    samples = find_samples(options.folder, classes)
    if alone and all(sample.truth is None for sample in samples):
        names = subfolders(options.folder, (sample.path for sample in samples))
        why = unknown_folders(names, classes) if names else "has no folders that name a class"
        raise UsageError(
            f"the pictures in '{options.folder}' are unlabeled: it {why}; or give --val-list, or "
            "--against for two models' agreement"
        )
    return samples


def _predict(
    options: argparse.Namespace, protocol: EvalProtocol, model: Model, samples: Sequence[Sample]
) -> list[Prediction]:
    """Predict in this process, or on the fleet of --on."""
    started = closing(open_fleet(options.on, options.workers)) if options.on else nullcontext()
    with started as fleet:
        return predict(
            model,
            samples,
            protocol,
            keep_log_scores=options.report is not None,
            workers=options.workers,
            folder=options.out,
            fleet=fleet,
            progress=lambda made, total: with_bar(made, total, "picture"),
        )


def _log_errors(failures: Sequence[Prediction]) -> None:
    for failure in failures[:_SHOWN]:
        _log.error("%s: %s", failure.sample.path, failure.error)
    if len(failures) > _SHOWN:
        _log.error("and %d more", len(failures) - _SHOWN)
