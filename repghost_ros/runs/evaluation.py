# SPDX-License-Identifier: Apache-2.0
"""Accuracy over labelled pictures, agreement of two models over any pictures; resumable, on all cores.

Predictions are appended to FOLDER/predictions.csv as they are made, so an interrupted run can be
continued.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from repghost_ros.engine.model import Answered, Model
from repghost_ros.engine.results import Reporting, log_probabilities
from repghost_ros.errors import SourceError
from repghost_ros.files import sha256
from repghost_ros.output import named_errors, whole_file
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.folders import IMAGES, files_in
from repghost_ros.sources.pictures import read_image
from repghost_ros.vision.nv12 import ResizePolicy
from repghost_ros.vision.view import View
from repghost_ros.zoo.labels import IMAGENET_CLASSES, imagenet_synsets

TOP = 5
_COLUMNS = (
    "model",
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
class Sample:
    """A picture and what it shows."""

    path: Path
    truth: int | None
    """Class index, or None where it is unknown."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to a sample."""

    sample: Sample
    best: tuple[int, ...] = ()
    """The five best classes' indices, best first; empty after an error."""
    score: float = 0.0
    """Probability of the best."""
    error: str = ""
    log_scores: np.ndarray | None = field(default=None, compare=False, repr=False)
    """Logarithms of all classes' probabilities at temperature 1, float32, where they were kept."""


@dataclass
class Accuracy:
    """Counts over labelled predictions."""

    pictures: int = 0
    """Those that could be read."""
    top1: int = 0
    top5: int = 0
    failed: int = 0
    per_class: dict[int, list[int]] = field(default_factory=dict)
    """Class index to pictures, top-1 and top-5 hits."""

    def share(self, hits: int) -> float | None:
        """As a share of the pictures, 0.0 to 1.0; None if there are none."""
        return hits / self.pictures if self.pictures else None


def find_samples(folder: Path, labels: Sequence[str]) -> list[Sample]:
    """The pictures in an ImageNet-style folder, sorted.

    A subfolder names its pictures' class by WordNet id (n01440764), by label (spaces or underscores)
    or by index. Pictures of a folder without such subfolders are unlabelled.

    Raises:
        SourceError: there are no pictures, or some subfolders name classes and others do not.

    """
    if not folder.is_dir():
        raise SourceError(f"folder '{folder}' does not exist")
    class_of = class_names(labels)
    found = files_in(folder, IMAGES)
    if not found:
        raise SourceError(f"folder '{folder}' holds no images")
    parents = {path.relative_to(folder).parts[0] for path in found if path.parent != folder}
    known = {name for name in parents if _class(class_of, name) is not None}
    if known and known != parents:
        raise SourceError(
            f"'{folder}' has folders that name no class of the model, such as "
            f"'{min(parents - known)}': rename them, or take them out"
        )
    return [Sample(path, _class(class_of, path.relative_to(folder).parts[0])) for path in found]


def read_val_list(path: Path, folder: Path, labels: Sequence[str]) -> list[Sample]:
    """Samples from a list of lines: a picture's path below `folder`, blanks or a comma, and its class.

    The class is an index, a WordNet id or a label. Lines that begin with # are ignored.

    Raises:
        SourceError: the list cannot be read, or a line is invalid.

    """
    class_of = class_names(labels)
    samples = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"list '{path}' cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        # Paths and labels may contain blanks: the split that gives a file and a class is the one.
        ways = [
            Sample(folder / line[: gap.start()], truth)
            for gap in re.finditer(r"[\s,]+", line)
            if (truth := _class(class_of, line[gap.end() :])) is not None
        ]
        if not ways:
            raise SourceError(
                f"line {number} of '{path}' is '{line}': expected PATH CLASS, CLASS an index, a "
                "WordNet id or a label of the model"
            )
        samples.append(next((way for way in ways if way.path.is_file()), ways[0]))
    if not samples:
        raise SourceError(f"list '{path}' is empty")
    return samples


def class_names(labels: Sequence[str]) -> Mapping[str, int]:
    """Every way to name a class, and its index: labels as they are and, if unique, plain."""
    names = {str(index): index for index in range(len(labels))}
    plain = Counter(map(_plain, labels))
    names |= {_plain(name): i for i, name in enumerate(labels) if plain[_plain(name)] == 1}
    names |= {label: index for index, label in enumerate(labels)}
    if len(labels) == IMAGENET_CLASSES:
        names |= {synset: index for index, synset in enumerate(imagenet_synsets())}
    return names


def _class(class_of: Mapping[str, int], name: str) -> int | None:
    if name.isdecimal():  # 007 is 7
        name = str(int(name))
    return class_of.get(name, class_of.get(_plain(name)))


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").casefold()


def predict(
    model: Model,
    samples: Sequence[Sample],
    *,
    resize: ResizePolicy = "crop",
    temperature: float = 1.0,
    keep_log_scores: bool = False,
    workers: int | None = None,
    folder: Path | None = None,
    progress: Callable[[Iterable[Prediction], int], Iterable[Prediction]] | None = None,
    classify: Callable[[Sequence[Sample]], Iterator[Prediction]] | None = None,
) -> list[Prediction]:
    """A model's answers to all samples, in their order.

    Args:
        model: stays the caller's.
        samples: the pictures.
        resize: one of RESIZE_POLICIES; `crop` is ImageNet's protocol.
        temperature: what logits are divided by, see Reporting.
        keep_log_scores: keep the log-scores of predictions made in this run.
        workers: pictures classified at the same time; default: one per core.
        folder: keeps predictions.csv; what is there of this model, resize and picture (its path,
            size and time of change) is not done again.
        progress: wraps the predictions made in this run; told how many.
        classify: makes them, in the order of the samples; default: in this process.

    Raises:
        SourceError: predictions.csv is not one.

    """
    progress = progress or (lambda made, _: made)
    classify = classify or (
        lambda these: classify_samples(
            *(model, these, resize, workers),
            temperature=temperature,
            keep_log_scores=keep_log_scores,
        )
    )
    if folder is None:
        made = classify(samples)
        return list(progress(made, len(samples)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "predictions.csv"
    identity = f"{model.path.name}:{_fingerprint(model.path)}:{model.color_range}"
    if temperature != 1.0:
        identity += f":{temperature:g}"
    known = _read(path, identity, resize)
    done = {s: replace(known[key], sample=s) for s in samples if (key := _identity(s)) in known}
    missing = [sample for sample in samples if sample not in done]
    with (
        named_errors(path),
        path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(_COLUMNS)
        for prediction in progress(classify(missing), len(missing)):
            about = (identity, resize, *_identity(prediction.sample))
            writer.writerow((*about, *_cells(prediction, model.labels)))
            file.flush()
            done[prediction.sample] = prediction
    return [done[sample] for sample in samples]


def classify_samples(
    model: Model,
    samples: Sequence[Sample],
    resize: ResizePolicy,
    workers: int | None,
    *,
    temperature: float = 1.0,
    keep_log_scores: bool = False,
) -> Iterator[Prediction]:
    """A prediction for each sample, in their order; the arguments are those of `predict`."""
    outcomes = classify_each(
        model,
        samples,
        lambda sample: read_image(sample.path),
        View(resize=resize),
        Reporting(top_k=TOP, class_id="index", temperature=temperature),
        workers=workers,
    )
    for outcome in outcomes:
        sample = outcome.request.message
        if not isinstance(outcome, Answered):
            yield Prediction(sample, error=str(outcome.error))
            continue
        best = tuple(int(result.class_id) for result in outcome.results)
        kept = None
        if keep_log_scores:
            kept = log_probabilities(outcome.logits, model.activation).astype(np.float32)
        yield Prediction(sample, best, outcome.results[0].score, log_scores=kept)


def _cells(prediction: Prediction, labels: Sequence[str]) -> tuple[object, ...]:
    """A line of predictions.csv, from the truth on."""
    truth, best = prediction.sample.truth, prediction.best
    return (
        *(("", "") if truth is None else (truth, labels[truth])),
        *(*best, *("" for _ in range(TOP - len(best)))),
        labels[best[0]] if best else "",
        prediction.score,
        prediction.error,
    )


def _identity(sample: Sample) -> tuple[str, str]:
    """The picture's path and what changes with its content."""
    path = sample.path.absolute()
    try:
        status = path.stat()
    except OSError:
        return str(path), ""
    return str(path), f"{status.st_size} bytes at {status.st_mtime_ns}"


def _read(path: Path, model: str, resize: str) -> dict[tuple[str, str], Prediction]:
    """The usable lines of an earlier run; a last line that broke off is cut from the file."""
    known: dict[tuple[str, str], Prediction] = {}
    if not path.is_file():
        return known
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    if not whole.startswith(",".join(_COLUMNS)):
        raise SourceError(f"'{path}' is not of this command: choose another folder, or remove it")
    if whole != text:
        path.write_text(whole, encoding="utf-8", errors="surrogateescape", newline="")
    for row in csv.DictReader(io.StringIO(whole, newline="")):
        # Failed pictures are retried.
        if row["model"] != model or row["resize"] != resize or row["error"]:
            continue
        try:
            best = tuple(int(row[f"top{k + 1}"]) for k in range(TOP) if row[f"top{k + 1}"])
            prediction = Prediction(Sample(Path(row["path"]), None), best, float(row["score"]))
        except (ValueError, TypeError):  # a damaged line
            continue
        known[row["path"], row["picture"]] = prediction
    return known


def _fingerprint(path: Path) -> str:
    return sha256(path)[:12]


def accuracy(predictions: Iterable[Prediction]) -> Accuracy:
    """Top-1 and top-5 over the labelled predictions."""
    total = Accuracy()
    for prediction in predictions:
        truth = prediction.sample.truth
        if prediction.error:
            total.failed += 1
        elif truth is not None:
            hits = (prediction.best[0] == truth, truth in prediction.best)
            total.pictures += 1
            total.top1 += hits[0]
            total.top5 += hits[1]
            counts = total.per_class.setdefault(truth, [0, 0, 0])
            for place, count in enumerate((1, *hits)):
                counts[place] += count
    return total


def agreement(
    these: Iterable[Prediction], those: Iterable[Prediction]
) -> tuple[int, int, list[tuple[Prediction, Prediction]]]:
    """For two models on the same samples: pictures, equal top-1, and those that differ."""
    pairs = [
        (this, that)
        for this, that in zip(these, those, strict=True)
        if not this.error and not that.error
    ]
    differing = [(this, that) for this, that in pairs if this.best[0] != that.best[0]]
    return len(pairs), len(pairs) - len(differing), differing


def write_per_class(path: Path, labels: Sequence[str], accuracies: Mapping[str, Accuracy]) -> None:
    """A CSV with one line per class: pictures, and each model's share of top-1 and top-5 hits."""
    classes = sorted({index for each in accuracies.values() for index in each.per_class})
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        heads = [f"{name} {top}" for name in accuracies for top in ("top-1", "top-5")]
        writer.writerow(("index", "class", "pictures", *heads))
        for index in classes:
            counts = [each.per_class.get(index, [0, 0, 0]) for each in accuracies.values()]
            shares = [f"{hits / max(1, c[0]):.4f}" for c in counts for hits in c[1:]]
            writer.writerow((index, labels[index], max(c[0] for c in counts), *shares))
