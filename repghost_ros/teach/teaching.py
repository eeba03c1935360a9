# SPDX-License-Identifier: Apache-2.0
"""Teach own classes to a classifier: a new head on its features, measured on held-out pictures.

Everything is chosen by cross-validation: how pictures are fitted to the input, the strength of the
penalty, the temperature and the threshold of `unknown`. The temperature is divided into the head's
weights, so that its scores are calibrated wherever the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError
from repghost_ros.graphs.graph import load, refuse_quantized, save
from repghost_ros.graphs.head import Trunk, copy_with_metadata, cut, with_head
from repghost_ros.teach.features import Work, features
from repghost_ros.teach.labeled import Labeled, folds
from repghost_ros.teach.logistic import Head, fit
from repghost_ros.teach.measures import (
    UNKNOWN,
    Curve,
    answers,
    confusion,
    fit_threshold,
    smoothed_temperature,
    softmax_rows,
    surprise,
    wilson,
)
from repghost_ros.vision.nv12 import ResizePolicy
from repghost_ros.zoo.model_file import read_model_file
from repghost_ros.zoo.own import (
    CROP_KEY,
    LABELS_KEY,
    RESIZE_KEY,
    TRAINED_KEY,
    UNKNOWN_BELOW_KEY,
)
from repghost_ros.zoo.record import IMAGENET, Preprocessing

FOLDS = 5
COPIES = 5
"""Copies of each training picture; see `features`."""
STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Of the penalty; the strongest first is the easiest to fit, and a start for the next."""
DEFAULT_STRENGTH = 1e-2
"""Where nothing can be measured."""
RESIZES: tuple[ResizePolicy, ...] = ("stretch", "crop")
_CURVE = (0.25, 0.5, 0.75)
"""Shares of the training groups that the learning curve is measured at, besides all."""
_DOUBTED = 0.1
"""Score of the given label below which a picture may be labeled wrong."""
_SURE = 0.6
"""Score of another class above which it may."""
Step = Callable[[str], None]
"""Is called with what is done next, in words."""


@dataclass(frozen=True)
class Measured:
    """Answers to pictures that the model which gave them was not trained with."""

    truth: np.ndarray
    """int (pictures,), class indices."""
    answered: np.ndarray
    """int (pictures,), class indices or UNKNOWN."""
    scores: np.ndarray
    """float64 (pictures, classes)."""
    nothing: int | None

    @property
    def right(self) -> np.ndarray:
        """Return which answers are correct, bool (pictures,): for `nothing` that is UNKNOWN."""
        wanted = self.truth
        if self.nothing is not None:
            wanted = np.where(wanted == self.nothing, UNKNOWN, wanted)
        return np.asarray(self.answered == wanted)

    @property
    def accuracy(self) -> float | None:
        """Share that is right; None if there are no pictures."""
        return float(self.right.mean()) if len(self.truth) else None

    @property
    def false_alarms(self) -> tuple[int, int]:
        """Pictures of `nothing` that were given a class, and all of them."""
        shown = self.truth == self.nothing if self.nothing is not None else self.truth == UNKNOWN
        return int((self.answered[shown] != UNKNOWN).sum()), int(shown.sum())

    def as_json(self) -> dict[str, Any]:
        """Return the counts, the accuracy and its 95 % interval."""
        hits, count = int(self.right.sum()), len(self.truth)
        low, high = wilson(hits, count)
        alarms, shown = self.false_alarms
        return {
            **{"pictures": count, "right": hits, "accuracy": self.accuracy},
            **{"interval": [low, high] if count else None},
            **{"nothing": shown, "false_alarms": alarms},
        }


@dataclass(frozen=True)
class Doubt:
    """A picture that may be labeled wrong."""

    path: Path
    label: str
    answer: str
    score: float


@dataclass(frozen=True)
class Taught:
    """The taught model, and its measured quality."""

    labeled: Labeled
    base: str
    resize: ResizePolicy
    by_resize: dict[str, float]
    """Accuracy by resize policy, cross-validated without copies; empty if not compared."""
    strength: float
    temperature: float
    unknown_below: float
    validated: Measured
    """Cross-validation over the training pictures."""
    held_out: Measured
    """The written model on pictures that took no part."""
    held_out_paths: tuple[Path, ...]
    curve: Curve | None
    unlike: tuple[int, int]
    """Pictures of a class that was left out which were given another, and all of them."""
    doubts: tuple[Doubt, ...]
    unmeasured: tuple[str, ...]
    """Classes that come from one recording or burst, so nothing can be measured on."""
    model: Any
    """The onnx.ModelProto."""
    alone: Taught | None = None
    """Of a fine-tuned model: the head alone, taught with the same pictures."""

    @property
    def confusion(self) -> np.ndarray:
        """Counts of all measured answers: int (classes, classes + 1), `unknown` last."""
        truth = [*self.validated.truth, *self.held_out.truth]
        answered = [*self.validated.answered, *self.held_out.answered]
        return confusion(truth, answered, len(self.labeled.labels))

    def as_json(self) -> dict[str, Any]:
        """Return the fields for programs."""
        labels = self.labeled.labels
        counts = np.bincount(self.labeled.truth, minlength=len(labels)).tolist()
        table = self.confusion
        return {
            "base": self.base,
            "classes": [
                {
                    **{"class": name, "pictures": counts[index]},
                    **{"measured": int(table[index].sum()), "right": _right(table, self, index)},
                }
                for index, name in enumerate(labels)
            ],
            "held_out": self.held_out.as_json(),
            "cross_validated": self.validated.as_json(),
            "confusion": {"columns": [*labels, "unknown"], "rows": table.tolist()},
            "resize": self.resize,
            "accuracy_by_resize": self.by_resize,
            "strength": self.strength,
            "temperature": self.temperature,
            "unknown_below": self.unknown_below,
            "untaught": {"pictures": self.unlike[1], "false_alarms": self.unlike[0]},
            "curve": None
            if self.curve is None
            else {
                "pictures": list(self.curve.pictures),
                "accuracy": list(self.curve.accuracy),
                "predicted_of_twice_as_many": self.curve.predicted(2.0),
            },
            "doubts": [
                {"path": str(d.path), "label": d.label, "answer": d.answer, "score": d.score}
                for d in self.doubts
            ],
            "unmeasured": list(self.unmeasured),
            "head_alone": None
            if self.alone is None
            else {
                "held_out": self.alone.held_out.as_json(),
                "cross_validated": self.alone.validated.as_json(),
            },
        }


def _right(table: np.ndarray, taught: Taught, index: int) -> int:
    return int(table[index, -1 if index == taught.labeled.nothing else index])


def read_trunk(path: Path, usual: Preprocessing = IMAGENET) -> Trunk:
    """Read a classifier and cut off its head.

    Args:
        path: the .onnx.
        usual: of a model whose file does not say how pictures are cropped, recorded in the trunk.

    Raises:
        ConversionError: it is not a float ONNX classifier that ends in a linear layer.

    """
    model = load(path)
    refuse_quantized(model, f"'{path}'")
    trunk = cut(model, f"'{path}'")
    crop_share = read_model_file(path).own.fit(usual).crop_share
    return replace(trunk, model=copy_with_metadata(trunk.model, {CROP_KEY: str(crop_share)}))


def teach(
    trunk: Trunk,
    labeled: Labeled,
    *,
    base: str,
    held_out: float = 0.2,
    resize: ResizePolicy | None = None,
    mirrors: bool = True,
    step: Step = lambda _: None,
    work: Work = lambda items, _: items,
) -> Taught:
    """Teach the classes of labeled pictures.

    Args:
        trunk: the classifier without its head.
        labeled: the pictures.
        base: its name, for the report.
        held_out: share of the pictures that the model is measured on and never trained with.
        resize: how pictures are fitted to its input; None: as cross-validation likes better.
        mirrors: whether a mirrored picture still shows its class.
        step: is called before each part of the work.
        work: wraps pictures that are worked through.

    Raises:
        ConversionError: the model cannot be taught.
        BackendError: ONNX Runtime cannot run it.

    """
    paths = [picture.path for picture in labeled.pictures]
    truth, groups = labeled.truth, labeled.groups
    classes = len(labeled.labels)
    test = hold_out(labeled, held_out)
    train = np.flatnonzero(~test)
    fold = folds(truth[train], groups[train], FOLDS)
    chosen = resize or RESIZES[0]
    by_resize: dict[str, float] = {}
    if resize is None and (fold >= 0).any():
        step("choosing how pictures are fitted")
        losses = {}
        for policy in RESIZES:
            seen = features(trunk, [paths[at] for at in train], policy, work=work)
            made = _cross_validate(seen, truth[train], fold, classes)
            losses[policy], accuracy = _best_loss(made, truth[train])
            by_resize[policy] = accuracy
        chosen = min(RESIZES, key=lambda policy: losses[policy])
    step("seeing the pictures")
    seen = features(trunk, [paths[at] for at in train], chosen, COPIES, mirrors=mirrors, work=work)
    step("fitting")
    return _fitted(
        *(trunk, labeled, base, train, np.flatnonzero(test), fold, chosen, by_resize, seen),
        features(trunk, [paths[at] for at in np.flatnonzero(test)], chosen, work=work)[:, 0],
    )


def hold_out(labeled: Labeled, share: float) -> np.ndarray:
    """Choose the pictures that are measured on and never trained with: bool (pictures,)."""
    truth = labeled.truth
    test = np.zeros(len(truth), bool)
    if share > 0:
        test = folds(truth, labeled.groups, max(2, round(1 / share))) == 0
        if not all(np.isin(range(len(labeled.labels)), truth[~test])):
            test[:] = False
    return test


def _fitted(
    trunk: Trunk,
    labeled: Labeled,
    base: str,
    train: np.ndarray,
    test: np.ndarray,
    fold: np.ndarray,
    resize: ResizePolicy,
    by_resize: dict[str, float],
    seen: np.ndarray,
    seen_test: np.ndarray,
) -> Taught:
    """Choose, fit and measure, given the features."""
    classes, nothing = len(labeled.labels), labeled.nothing
    truth = labeled.truth[train]
    tried = _cross_validate(seen, truth, fold, classes)
    judged = fold >= 0
    strength, temperature = _pick(tried, truth, judged)
    left_out = _left_out(seen, truth, classes, strength) if nothing is None else None
    threshold = _threshold(tried[strength], truth, judged, temperature, nothing, left_out)
    validated = _validated(tried, truth, fold, nothing, left_out)
    head = _fit(seen, truth, classes, strength).cooled(temperature)
    scores = softmax_rows(head.logits(seen_test)) if len(test) else np.zeros((0, classes))
    held_out = Measured(labeled.truth[test], answers(scores, nothing, threshold), scores, nothing)
    unlike = (0, 0)
    if left_out is not None and len(left_out):
        alarms = answers(softmax_rows(left_out, temperature), nothing, threshold) != UNKNOWN
        unlike = int(alarms.sum()), len(alarms)
    pictures = labeled.pictures
    kept = [pictures[at] for at in (*train[judged], *test)]
    all_scores = np.concatenate([validated.scores, held_out.scores])
    measured = {*truth[judged].tolist(), *labeled.truth[test].tolist()}
    return Taught(
        labeled=labeled,
        base=base,
        resize=resize,
        by_resize=by_resize,
        strength=strength,
        temperature=temperature,
        unknown_below=threshold,
        validated=validated,
        held_out=held_out,
        held_out_paths=tuple(pictures[at].path for at in test),
        curve=_curve(seen, truth, fold, classes, strength, validated, labeled.groups[train]),
        unlike=unlike,
        doubts=_doubts(labeled, [p.path for p in kept], [p.truth for p in kept], all_scores),
        unmeasured=tuple(n for i, n in enumerate(labeled.labels) if i not in measured),
        model=assemble(trunk, head, labeled, train, resize, threshold),
    )


def assemble(
    trunk: Trunk,
    head: Head,
    labeled: Labeled,
    train: np.ndarray,
    resize: ResizePolicy,
    threshold: float,
) -> Any:
    """Put a head on a trunk, and what the node has to know into its metadata: an onnx.ModelProto."""
    own = {
        LABELS_KEY: "\n".join(labeled.labels),
        RESIZE_KEY: resize,
        UNKNOWN_BELOW_KEY: f"{threshold:.4f}",
        TRAINED_KEY: "\n".join(labeled.pictures[at].digest for at in train),
    }
    return with_head(trunk, head.kernel, head.bias, own)


def _fit(
    seen: np.ndarray, truth: np.ndarray, classes: int, strength: float, start: Head | None = None
) -> Head:
    """Fit a head to pictures and their copies."""
    rows = seen.reshape(-1, seen.shape[2])
    return fit(rows, np.repeat(truth, seen.shape[1]), classes, strength, start)


def _cross_validate(
    seen: np.ndarray, truth: np.ndarray, fold: np.ndarray, classes: int
) -> dict[float, np.ndarray]:
    """Return the logits of each picture by a head that was not trained with its fold, by strength.

    Those of fold -1 are NaN.
    """
    made = {strength: np.full((len(truth), classes), np.nan) for strength in STRENGTHS}
    for number in range(fold.max(initial=-1) + 1):
        trains, judged = fold != number, fold == number
        head = None
        for strength in sorted(STRENGTHS, reverse=True):
            head = _fit(seen[trains], truth[trains], classes, strength, head)
            made[strength][judged] = head.logits(seen[judged, 0])
    return made


def _pick(
    tried: dict[float, np.ndarray], truth: np.ndarray, judged: np.ndarray
) -> tuple[float, float]:
    """Choose the strength that serves the judged pictures best, and its temperature."""
    if not judged.any():
        return DEFAULT_STRENGTH, 1.0
    temperatures = {
        s: smoothed_temperature(logits[judged], truth[judged]) for s, logits in tried.items()
    }
    strength = min(tried, key=lambda s: surprise(tried[s][judged], truth[judged], temperatures[s]))
    return strength, temperatures[strength]


def _best_loss(tried: dict[float, np.ndarray], truth: np.ndarray) -> tuple[float, float]:
    """Return loss and accuracy of the best strength."""
    judged = ~np.isnan(next(iter(tried.values()))[:, 0])
    strength, temperature = _pick(tried, truth, judged)
    logits = tried[strength][judged]
    hits = float((logits.argmax(axis=1) == truth[judged]).mean())
    return surprise(logits, truth[judged], temperature), hits


def _left_out(seen: np.ndarray, truth: np.ndarray, classes: int, strength: float) -> np.ndarray:
    """Return logits of pictures of no class: of each class, by a head that does not know it.

    Two classes are too few for that: the head would know one.
    """
    if classes < 3:
        return np.zeros((0, classes))
    made = []
    for index in range(classes):
        known = truth != index
        head = _fit(seen[known], truth[known], classes, strength)
        made.append(head.logits(seen[~known, 0]))
    return np.concatenate(made)


def _threshold(
    logits: np.ndarray,
    truth: np.ndarray,
    judged: np.ndarray,
    temperature: float,
    nothing: int | None,
    left_out: np.ndarray | None,
) -> float:
    """Fit the threshold of `unknown` to the judged pictures; 0 where there are none of no class."""
    shows = judged if nothing is None else judged & (truth != nothing)
    scores = softmax_rows(logits[shows], temperature)
    of_none = left_out if left_out is not None else logits[judged & (truth == nothing)]
    if not len(scores) or not len(of_none):
        return 0.0
    return fit_threshold(scores, truth[shows], softmax_rows(of_none, temperature), nothing)


def _validated(
    tried: dict[float, np.ndarray],
    truth: np.ndarray,
    fold: np.ndarray,
    nothing: int | None,
    left_out: np.ndarray | None,
) -> Measured:
    """Answer each fold, strength, temperature and threshold chosen by the others alone."""
    judged = np.flatnonzero(fold >= 0)
    scores = np.zeros((len(truth), next(iter(tried.values())).shape[1]))
    answered = np.full(len(truth), UNKNOWN)
    for number in range(fold.max(initial=-1) + 1):
        others, here = (fold >= 0) & (fold != number), fold == number
        strength, temperature = _pick(tried, truth, others)
        threshold = _threshold(tried[strength], truth, others, temperature, nothing, left_out)
        scores[here] = softmax_rows(tried[strength][here], temperature)
        answered[here] = answers(scores[here], nothing, threshold)
    return Measured(truth[judged], answered[judged], scores[judged], nothing)


def _curve(
    seen: np.ndarray,
    truth: np.ndarray,
    fold: np.ndarray,
    classes: int,
    strength: float,
    validated: Measured,
    groups: np.ndarray,
) -> Curve | None:
    """Measure the accuracy of the best class by how many of the training groups are trained with."""
    if fold.max(initial=-1) < 1:
        return None
    random = np.random.default_rng(0)
    points = []
    for share in _CURVE:
        hits, sizes = [], []
        for number in range(fold.max() + 1):
            trains = np.zeros(len(truth), bool)
            for index in range(classes):
                own = np.unique(groups[(fold != number) & (truth == index)])
                if len(own):
                    kept = random.permutation(own)[: max(1, round(share * len(own)))]
                    trains |= (fold != number) & (truth == index) & np.isin(groups, kept)
            judged = fold == number
            head = _fit(seen[trains], truth[trains], classes, strength)
            hits.append(head.logits(seen[judged, 0]).argmax(axis=1) == truth[judged])
            sizes.append(trains.sum() / classes)
        points.append((float(np.mean(sizes)), float(np.concatenate(hits).mean())))
    whole = np.mean([(fold != number).sum() / classes for number in range(fold.max() + 1)])
    best = validated.scores.argmax(axis=1) == validated.truth
    points.append((float(whole), float(best.mean())))
    return Curve(tuple(size for size, _ in points), tuple(accuracy for _, accuracy in points))


def _doubts(
    labeled: Labeled, paths: Sequence[Path], truth: Iterable[int], scores: np.ndarray
) -> tuple[Doubt, ...]:
    """Find the pictures whose label the model doubts most, the surest first."""
    found = []
    for path, index, of_classes in zip(paths, truth, scores, strict=True):
        best = int(of_classes.argmax())
        if of_classes[index] < _DOUBTED and of_classes[best] > _SURE:
            names = labeled.labels[index], labeled.labels[best]
            found.append(Doubt(path, *names, float(of_classes[best])))
    return tuple(sorted(found, key=lambda doubt: -doubt.score))


def write_model(taught: Taught, path: Path) -> None:
    """Write the taught model as a whole.

    Raises:
        ConversionError: the name does not end in .onnx.
        OutputError: it cannot be written.

    """
    if path.suffix.lower() != ".onnx":
        raise ConversionError(f"'{path}' must end in .onnx")
    save(taught.model, path)
