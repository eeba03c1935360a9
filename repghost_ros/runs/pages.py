# SPDX-License-Identifier: Apache-2.0
"""Results as one HTML file each: an evaluation, a replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.engine.overlay import picture
from repghost_ros.errors import FrameError
from repghost_ros.output import whole_file
from repghost_ros.runs import html
from repghost_ros.runs.evaluation import Evaluated, Prediction
from repghost_ros.runs.plots import plot_confusion, plot_reliability, plot_timeline
from repghost_ros.runs.reliability import fit_temperature, reliability, temperature_interval
from repghost_ros.runs.replay import Summary
from repghost_ros.sources.pictures import read_image
from repghost_ros.zoo.onnx_graph import model_sha256

_CLASSES = 20  # of a confusion matrix
_MISTAKES = 12  # pictures
_LEAST_PICTURES, _LEAST_MISTAKES = 200, 10  # that a temperature is fitted to
_RUNS = 200  # rows


def write_evaluation(
    path: Path, evaluated: Sequence[Evaluated], fitting: str, folder: Path
) -> None:
    """Write a report of an evaluation.

    Args:
        path: the .html file.
        evaluated: the models' predictions.
        fitting: the resize policy, in words.
        folder: of the pictures.

    Raises:
        OutputError: it cannot be written.

    """

    def percent(value: float | None) -> str | None:
        return None if value is None else f"{value:.2%}"

    parts = [
        html.table(
            ("model", "runtime", "pictures", "refused", "failed", "top-1", "top-5"),
            (
                (
                    *(model.name, model.runtime),
                    *(model.accuracy.pictures, model.accuracy.refused, model.accuracy.failed),
                    percent(model.accuracy.share(model.accuracy.top1)),
                    percent(model.accuracy.share(model.accuracy.top5)),
                )
                for model in evaluated
            ),
            f"Pictures are fitted to the model by resize: {fitting}.",
        )
    ]
    for model in evaluated:
        judged = [p for p in model.predictions if not p.error and p.sample.truth is not None]
        if judged:
            if len(evaluated) > 1:
                parts.append(f"<h1>{html.escape(model.name)}</h1>")
            parts += _model(judged, model.labels)
    names = " and ".join(model.name for model in evaluated)
    files = "; ".join(f"{model.path}, SHA-256 {model_sha256(model.path)}" for model in evaluated)
    _write(path, html.page(f"Evaluation of {names}", parts, f"Pictures in {folder}; {files}"))


def _model(judged: Sequence[Prediction], labels: Sequence[str]) -> Iterator[str]:
    truth = np.array([prediction.sample.truth for prediction in judged], int)
    best = np.array([prediction.best[0] for prediction in judged], int)
    yield "<h2>Reliability of scores</h2>"
    yield from _reliability(judged, truth, best)
    yield "<h2>Confusion matrix</h2>"
    yield from _confusion(truth, best, labels)
    yield "<h2>All classes</h2>"
    yield html.table(
        ("class", "pictures", "precision", "recall", "F1"),
        sorted(_classes(truth, best, labels), key=lambda row: str(row[-1])),
        "The worst come first. Precision: the share of the answers with this class that are correct; "
        "recall: the share of its pictures that are found; F1: their harmonic mean.",
    )
    wrong = sorted((e for e in judged if e.best[0] != e.sample.truth), key=lambda e: -e.score)
    yield f"<h2>The most confident of {html.count(len(wrong), 'mistake')}</h2>"
    yield html.gallery(_mistakes(wrong[:_MISTAKES], labels)) if wrong else "<p>None.</p>"


def _reliability(
    judged: Sequence[Prediction], truth: np.ndarray, best: np.ndarray
) -> Iterator[str]:
    right = (truth == best).tolist()
    shown = {"as reported": reliability([prediction.score for prediction in judged], right)}
    kept = [prediction for prediction in judged if prediction.log_scores is not None]
    said = (
        "No temperature could be fitted: the answers come from an earlier run or a fleet, or the "
        "classes are independent of prediction other."
    )
    mistakes = sum(prediction.best[0] != prediction.sample.truth for prediction in kept)
    if kept and (len(kept) < _LEAST_PICTURES or mistakes < _LEAST_MISTAKES):
        said = (
            f"No temperature was fitted: {html.count(len(kept), 'picture')} with "
            f"{html.count(mistakes, 'mistake')} are too few, at least {_LEAST_PICTURES} with "
            f"{_LEAST_MISTAKES} are needed."
        )
    elif kept:
        scores = np.stack(
            [prediction.log_scores for prediction in kept if prediction.log_scores is not None]
        )
        actual = np.array([prediction.sample.truth for prediction in kept], int)
        fitted = fit_temperature(scores, actual)
        scaled = scores / fitted
        scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        sure = (scaled.max(axis=1) / scaled.sum(axis=1)).tolist()
        hits = (scaled.argmax(axis=1) == actual).tolist()
        shown[f"temperature {fitted:.2f}"] = reliability(sure, hits)
        low, high = temperature_interval(scores, actual, fitted)
        said = (
            f"Fitted over {len(kept)} pictures: --temperature {fitted:.2f} (95 % interval {low:.2f} to "
            f"{high:.2f}), the node's parameter temperature. It changes scores, not classes. The error "
            "is measured on the pictures that the temperature was fitted to: check it on others."
        )
    yield html.plot(partial(plot_reliability, measured=shown), "accuracy over score")
    yield html.note(
        "The error is the mean distance between score and accuracy, weighted by the number of "
        f"pictures (expected calibration error, ECE). {said}"
    )


def _confusion(truth: np.ndarray, best: np.ndarray, labels: Sequence[str]) -> Iterator[str]:
    pairs = Counter(zip(truth.tolist(), best.tolist(), strict=True))
    mistaken = Counter[int]()
    for (shown, answered), count in pairs.items():
        if shown != answered:
            mistaken[shown] += count
            mistaken[answered] += count
    present = Counter([*truth.tolist(), *best.tolist()])
    worst = [index for index, _ in mistaken.most_common()]
    worst += [index for index in sorted(present) if index not in mistaken]
    chosen = sorted(worst[:_CLASSES])
    row_of = {index: row for row, index in enumerate(chosen)}
    counts = np.zeros((len(chosen) + 1,) * 2, int)
    for (shown, answered), count in pairs.items():
        counts[row_of.get(shown, len(chosen)), row_of.get(answered, len(chosen))] += count
    names = [*(labels[index] for index in chosen), "other classes"]
    if len(present) <= _CLASSES:
        counts, names = counts[:-1, :-1], names[:-1]
    else:
        counts[-1, -1] = 0  # mostly correct, and not interesting here
        yield html.note(
            f"The {_CLASSES} of {len(present)} classes with the most mistakes; the others are summed."
        )
    yield html.plot(partial(plot_confusion, names=names, counts=counts), "confusion matrix")
    confused = [(pair, n) for pair, n in pairs.most_common() if pair[0] != pair[1]][:10]
    if confused:
        yield html.table(
            ("actual", "predicted", "pictures"),
            ((labels[shown], labels[answered], n) for (shown, answered), n in confused),
            "The most frequent mistakes.",
        )


def _classes(
    truth: np.ndarray, best: np.ndarray, labels: Sequence[str]
) -> Iterator[tuple[object, ...]]:
    for index in np.union1d(truth, best).tolist():
        shown, answered = int((truth == index).sum()), int((best == index).sum())
        hits = int(((truth == index) & (best == index)).sum())
        precision, recall = hits / max(1, answered), hits / max(1, shown)
        f1 = 2 * hits / (shown + answered)
        yield labels[index], shown, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}"


def _mistakes(wrong: Iterable[Prediction], labels: Sequence[str]) -> Iterator[str]:
    for prediction in wrong:
        assert prediction.sample.truth is not None
        try:
            shown = picture(read_image(prediction.sample.path))
        except (FrameError, OSError):  # gone since
            continue
        yield html.figure(
            shown,
            f"predicted: {labels[prediction.best[0]]} ({prediction.score:.0%})\n"
            f"actual: {labels[prediction.sample.truth]}\n{prediction.sample.path.name}",
        )


def write_replay(path: Path, about: dict[str, Any], summary: Summary) -> None:
    """Write what a replay found.

    Args:
        path: the .html file.
        about: bag, topic, model, backend and speed, as `repghost replay --json` has them.
        summary: the answers.

    Raises:
        OutputError: it cannot be written.

    """
    runs = summary.timeline()
    start = min((best.moment_ns for best in summary.best), default=0)
    number = Counter(run.class_id for run in runs)
    scores: dict[str, list[float]] = {}
    for best in summary.best:
        scores.setdefault(best.class_id, []).append(best.score)
    parts = [
        html.pairs([*about.items(), ("refused", summary.refused), ("failed", summary.failed)]),
        "<h2>Best class over time</h2>",
        html.plot(partial(plot_timeline, summary=summary), "best class over time"),
        "<h2>Classes</h2>",
        html.table(
            ("class", "frames", "runs", "mean score"),
            (
                (name, frames, number[name], f"{np.mean(scores[name]):.3f}")
                for name, frames in summary.classes.most_common()
            ),
        ),
        "<h2>Runs of one class</h2>",
        html.table(
            ("class", "from s", "to s", "frames"),
            (
                (
                    run.class_id,
                    *(f"{(moment - start) / 1e9:.3f}" for moment in (run.from_ns, run.to_ns)),
                    run.frames,
                )
                for run in runs[:_RUNS]
            ),
            f"The first {_RUNS} of {len(runs)}." if len(runs) > _RUNS else "",
        ),
    ]
    title = f"Replay of {Path(str(about['bag'])).name}" if "bag" in about else "Replay"
    said = (f"{name} {about[name]}" for name in ("topic", "model", "model_sha256") if name in about)
    _write(path, html.page(title, parts, ", ".join(said)))


def _write(path: Path, text: str) -> None:
    with whole_file(path) as partial_file:
        partial_file.write_text(text, encoding="utf-8")
