# SPDX-License-Identifier: Apache-2.0
"""Accuracy over labeled pictures, agreement of two models over any pictures; resumable, on all cores.

Predictions are appended to FOLDER/predictions.csv as they are made, so an interrupted run can be
continued.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from repghost_ros.backends.base import Failed, Refused
from repghost_ros.engine.model import Answered, Model
from repghost_ros.engine.results import Reporting, log_probabilities
from repghost_ros.errors import SourceError
from repghost_ros.output import named_errors, whole_file
from repghost_ros.runs.batch import classify_each
from repghost_ros.runs.fleet import Fleet
from repghost_ros.runs.identity import answers_key
from repghost_ros.runs.samples import Sample
from repghost_ros.runs.shared_model import SharedModel
from repghost_ros.sources.pictures import read_image
from repghost_ros.vision.nv12 import Interpolation, ResizePolicy
from repghost_ros.vision.view import View

TOP = 5
_COLUMNS = (
    "model",
    "key",
    "resize",
    "path",
    "picture",
    "truth",
    "truth_class",
    *(f"top{k + 1}" for k in range(TOP)),
    "top1_class",
    "score",
    "error",
)


@dataclass(frozen=True)
class Prediction:
    """A model's answer to a sample."""

    sample: Sample
    best: tuple[int, ...] = ()
    """The five best classes' indices, best first; empty after an error."""
    score: float = 0.0
    """Probability of the best."""
    error: str = ""
    """Why there is no answer."""
    outcome: str = Answered.kind
    """`answered`, `refused` or `failed`, see the glossary."""
    log_scores: np.ndarray | None = field(default=None, compare=False, repr=False)
    """Logarithms of all classes' probabilities at temperature 1, float32, where they were kept."""


@dataclass
class Accuracy:
    """Counts over labeled predictions."""

    pictures: int = 0
    """Those that were answered."""
    top1: int = 0
    top5: int = 0
    refused: int = 0
    """Pictures that could not be read."""
    failed: int = 0
    """Pictures on which the backend failed."""
    per_class: dict[int, list[int]] = field(default_factory=dict)
    """Class index to pictures, top-1 and top-5 hits."""

    def share(self, hits: int) -> float | None:
        """Return hits as a share of the pictures, 0.0 to 1.0; None if there are none."""
        return hits / self.pictures if self.pictures else None


SHARD = 200
"""Pictures of a fleet's task."""


@dataclass(frozen=True)
class EvalProtocol:
    """The preprocessing of pictures, and the way from outputs to scores."""

    resize: ResizePolicy
    temperature: float = 1.0
    interpolation: Interpolation = "antialiased"

    @property
    def view(self) -> View:
        """The view of every picture."""
        return View(resize=self.resize, interpolation=self.interpolation)

    @property
    def reporting(self) -> Reporting:
        """The classes that count."""
        return Reporting(top_k=TOP, class_id="index", temperature=self.temperature, unknown="best")


def predict(
    model: Model,
    samples: Sequence[Sample],
    protocol: EvalProtocol,
    *,
    keep_log_scores: bool = False,
    workers: int | None = None,
    folder: Path | None = None,
    fleet: Fleet | None = None,
    progress: Callable[[Iterable[Prediction], int], Iterable[Prediction]] = lambda made, _: made,
) -> list[Prediction]:
    """Return a model's predictions for all samples, in their order.

    Args:
        model: stays the caller's.
        samples: the pictures.
        protocol: how the model sees them.
        keep_log_scores: keep the log-scores of predictions made in this process.
        workers: pictures classified at the same time in this process; default: one per core.
        folder: keeps predictions.csv; predictions there are used again if they have the same model,
            options and picture (its path, size and time of change).
        fleet: whose workers predict, instead of this process; they read the same paths.
        progress: wraps the predictions made in this run; called with them and their number.

    Raises:
        SourceError: predictions.csv is another file.
        FleetError: the fleet was lost.

    """
    # A temperature is fitted to one of many classes.
    keep_log_scores = keep_log_scores and model.activation in ("softmax", "none")
    classify = (
        partial(_classify_on, fleet, SharedModel.of(model, fleet), protocol)
        if fleet is not None
        else partial(_classify, model, protocol, workers, keep_log_scores)
    )
    if folder is None:
        return list(progress(classify(samples), len(samples)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "predictions.csv"
    key = answers_key(model, protocol.view, protocol.reporting)
    known = _read(path, key)
    done = {s: replace(known[which], sample=s) for s in samples if (which := _identity(s)) in known}
    missing = [sample for sample in samples if sample not in done]
    with (
        named_errors(path),
        path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(_COLUMNS)
        for prediction in progress(classify(missing), len(missing)):
            about = (model.path.name, key, protocol.resize, *_identity(prediction.sample))
            writer.writerow((*about, *_cells(prediction, model.labels)))
            file.flush()
            done[prediction.sample] = prediction
    return [done[sample] for sample in samples]


def _classify(
    model: Model,
    protocol: EvalProtocol,
    workers: int | None,
    keep_log_scores: bool,
    samples: Sequence[Sample],
) -> Iterator[Prediction]:
    """Yield predictions made in this process, in the order of the samples."""
    outcomes = classify_each(
        model,
        samples,
        lambda sample: read_image(sample.path),
        protocol.view,
        protocol.reporting,
        workers=workers,
    )
    for outcome in outcomes:
        sample = outcome.request.message
        if not isinstance(outcome, Answered):
            yield Prediction(sample, error=str(outcome.error), outcome=outcome.kind)
            continue
        best = tuple(int(result.class_id) for result in outcome.results)
        kept = None
        if keep_log_scores:
            kept = log_probabilities(outcome.logits, model.activation).astype(np.float32)
        yield Prediction(sample, best, outcome.results[0].score, log_scores=kept)


@dataclass(frozen=True)
class _Shard:
    """Some of the pictures, and what predicts them."""

    samples: tuple[Sample, ...]
    model: SharedModel
    protocol: EvalProtocol


def _classify_shard(shard: _Shard) -> list[Prediction]:
    """Return in a worker its predictions, in their order."""
    return list(_classify(shard.model.open(), shard.protocol, 1, False, shard.samples))


def _classify_on(
    fleet: Fleet, model: SharedModel, protocol: EvalProtocol, samples: Sequence[Sample]
) -> Iterator[Prediction]:
    """Yield predictions made by a fleet, in the order of the samples.

    Raises:
        FleetError: the fleet was lost, or a shard's workers were lost repeatedly.

    """
    shards = [
        _Shard(tuple(samples[first : first + SHARD]), model, protocol)
        for first in range(0, len(samples), SHARD)
    ]
    done: dict[int, list[Prediction]] = {}
    due = 0
    for number, value in fleet.run(_classify_shard, shards):
        if isinstance(value, Exception):
            raise value
        done[number] = value
        while due in done:
            yield from done.pop(due)
            due += 1


def _cells(prediction: Prediction, labels: Sequence[str]) -> tuple[object, ...]:
    """Read a line of predictions.csv, from the truth on."""
    truth, best = prediction.sample.truth, prediction.best
    return (
        *(("", "") if truth is None else (truth, labels[truth])),
        *(*best, *("" for _ in range(TOP - len(best)))),
        labels[best[0]] if best else "",
        prediction.score,
        prediction.error,
    )


def _identity(sample: Sample) -> tuple[str, str]:
    """Return the picture's path and the properties that change with its content."""
    path = sample.path.absolute()
    try:
        status = path.stat()
    except OSError:
        return str(path), ""
    return str(path), f"{status.st_size} bytes at {status.st_mtime_ns}"


def _read(path: Path, key: str) -> dict[tuple[str, str], Prediction]:
    """Return the usable lines of an earlier run; a last line that broke off is cut from the file."""
    known: dict[tuple[str, str], Prediction] = {}
    if not path.is_file():
        return known
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    header = ",".join(_COLUMNS)
    if not (text.startswith(header) or header.startswith(text)):  # which may have broken off
        raise SourceError(
            f"'{path}' is not of this version of the command: choose another folder, or remove it"
        )
    if whole != text:
        with whole_file(path) as partial:
            partial.write_bytes(whole.encode(errors="surrogateescape"))
    for row in csv.DictReader(io.StringIO(whole, newline="")):
        # Failed pictures are retried.
        if row["key"] != key or row["error"]:
            continue
        try:
            best = tuple(int(row[f"top{k + 1}"]) for k in range(TOP) if row[f"top{k + 1}"])
            prediction = Prediction(Sample(Path(row["path"]), None), best, float(row["score"]))
        except (ValueError, TypeError):  # a damaged line
            continue
        known[row["path"], row["picture"]] = prediction
    return known


def accuracy(predictions: Iterable[Prediction]) -> Accuracy:
    """Top-1 and top-5 over the labeled predictions."""
    total = Accuracy()
    for prediction in predictions:
        truth = prediction.sample.truth
        if prediction.error:
            total.refused += prediction.outcome == Refused.kind
            total.failed += prediction.outcome == Failed.kind
        elif truth is not None:
            hits = (prediction.best[0] == truth, truth in prediction.best)
            total.pictures += 1
            total.top1 += hits[0]
            total.top5 += hits[1]
            counts = total.per_class.setdefault(truth, [0, 0, 0])
            for column, count in enumerate((1, *hits)):
                counts[column] += count
    return total


@dataclass(frozen=True)
class Agreement:
    """The share of pictures to which two models give the same class."""

    pictures: int
    """Those that both answered."""
    differing: list[tuple[Prediction, Prediction]]

    @property
    def same_top1(self) -> int:
        """Pictures with the same best class."""
        return self.pictures - len(self.differing)


def agreement(these: Iterable[Prediction], those: Iterable[Prediction]) -> Agreement:
    """Compare two models' predictions for the same samples."""
    pairs = [
        (this, that)
        for this, that in zip(these, those, strict=True)
        if not this.error and not that.error
    ]
    differing = [(this, that) for this, that in pairs if this.best[0] != that.best[0]]
    return Agreement(len(pairs), differing)


@dataclass(frozen=True)
class Evaluated:
    """A model's predictions."""

    name: str
    path: Path
    runtime: str
    labels: tuple[str, ...]
    predictions: list[Prediction]

    @cached_property
    def accuracy(self) -> Accuracy:
        """Over the labeled pictures."""
        return accuracy(self.predictions)


def write_per_class(path: Path, evaluated: Sequence[Evaluated]) -> None:
    """Write a CSV with one line per class: pictures, and each model's share of top-1 and top-5 hits."""
    labels = evaluated[0].labels
    accuracies = {model.name: model.accuracy for model in evaluated}
    classes = sorted({index for accuracy in accuracies.values() for index in accuracy.per_class})
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        heads = [f"{name} {top}" for name in accuracies for top in ("top-1", "top-5")]
        writer.writerow(("index", "class", "pictures", *heads))
        for index in classes:
            counts = [accuracy.per_class.get(index, [0, 0, 0]) for accuracy in accuracies.values()]
            shares = [f"{hits / max(1, c[0]):.4f}" for c in counts for hits in c[1:]]
            writer.writerow((index, labels[index], max(c[0] for c in counts), *shares))
