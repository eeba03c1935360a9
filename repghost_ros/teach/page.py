# SPDX-License-Identifier: Apache-2.0
"""The report of a teaching as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from repghost_ros.engine.overlay import picture
from repghost_ros.errors import FrameError
from repghost_ros.files import sha256
from repghost_ros.output import whole_file
from repghost_ros.runs import html
from repghost_ros.runs.plots import plot_confusion
from repghost_ros.sources.pictures import read_image
from repghost_ros.teach.measures import UNKNOWN, wilson
from repghost_ros.teach.teaching import Measured, Taught

_PICTURES = 12


def write_teaching_page(taught: Taught, model: Path, path: Path) -> None:
    """Write the report.

    Args:
        taught: what was taught and measured.
        model: the written file.
        path: the .html file.

    Raises:
        OutputError: it cannot be written.

    """
    about = f"Pictures in {taught.labeled.folder}; {model}, SHA-256 {sha256(model)}"
    text = html.page(f"Taught: {', '.join(taught.labeled.labels)}", _parts(taught), about)
    with whole_file(path) as partial_file:
        partial_file.write_text(text, encoding="utf-8")


def _parts(taught: Taught) -> Iterator[str]:
    labels = taught.labeled.labels
    alone = taught.alone
    rows = [_row("held-out pictures, by the written model", taught.held_out)]
    if alone is None:
        what = f"A new head on {taught.base}"
        rows.append(_row("the others, by cross-validation", taught.validated))
    else:
        what = f"{taught.base}, fine-tuned as a whole"
        rows += [
            _row("held-out pictures, by the head alone", alone.held_out),
            _row("pictures that decided when to stop", taught.validated),
            _row("the others, by cross-validation of the head alone", alone.validated),
        ]
    yield html.table(
        ("measured on", "pictures", "correct", "accuracy", "95 % interval", "false alarms"),
        rows,
        f"{what}; pictures of one recording or burst stay together.",
    )
    if taught.unmeasured:
        yield html.note(
            f"Not measured: {', '.join(taught.unmeasured)}. All pictures of such a class are of one "
            "recording or burst: record another."
        )
    yield from _choices(taught)
    yield "<h2>All classes</h2>"
    counts = np.bincount(taught.labeled.truth, minlength=len(labels))
    table = taught.confusion
    rows = []
    for index, name in enumerate(labels):
        measured = int(table[index].sum())
        right = int(table[index, -1 if index == taught.labeled.nothing else index])
        rows.append((name, counts[index], measured, right, _interval(right, measured)))
    yield html.table(("class", "pictures", "measured", "correct", "95 % interval"), rows)
    yield "<h2>Confusion matrix</h2>"
    names = [*labels, "unknown"]
    square = np.vstack([table, np.zeros((1, len(names)), int)])
    yield html.plot(partial(plot_confusion, names=names, counts=square), "confusion matrix")
    yield "<h2>Would more pictures help?</h2>"
    yield from _curve(taught)
    yield "<h2>Probably labeled wrong</h2>"
    figures = []
    for doubt in taught.doubts[:_PICTURES]:
        try:
            shown = picture(read_image(doubt.path))
        except (FrameError, OSError):  # gone since
            continue
        said = f"labeled {doubt.label}, looks like {doubt.answer} ({doubt.score:.0%})"
        figures.append(html.figure(shown, f"{said}\n{doubt.path.name}"))
    yield html.gallery(figures) if figures else "<p>None.</p>"
    yield "<h2>Wrong answers</h2>"
    yield from _wrong(taught)


def _row(name: str, measured: Measured) -> tuple[object, ...]:
    hits, count = int(measured.right.sum()), len(measured.truth)
    alarms, shown = measured.false_alarms
    share = f"{hits / count:.1%}" if count else None
    return name, count, hits, share, _interval(hits, count), f"{alarms} of {shown}"


def _interval(hits: int, count: int) -> str | None:
    if not count:
        return None
    low, high = wilson(hits, count)
    return f"{low:.0%} to {high:.0%}"


def _choices(taught: Taught) -> Iterator[str]:
    compared = ", ".join(f"{name} {share:.1%}" for name, share in taught.by_resize.items())
    alarms, unlike = taught.unlike
    rows = [
        (
            "resize",
            taught.resize,
            f"accuracy without copies: {compared}" if compared else "as given",
        ),
        ("strength of the penalty", f"{taught.strength:g}", "chosen by cross-validation"),
        ("temperature", f"{taught.temperature:.2f}", "is in the weights: scores are calibrated"),
        (
            "unknown below",
            f"{taught.unknown_below:.2f}",
            f"{alarms} of {unlike} pictures of a class that was left out pass it" if unlike else "",
        ),
    ]
    yield html.table(("setting", "chosen", ""), rows, "These travel in the model file.")


def _curve(taught: Taught) -> Iterator[str]:
    curve = taught.curve
    if curve is None:
        yield "<p>It could not be measured.</p>"
        return
    rows = [
        (f"{pictures:.0f}", f"{accuracy:.1%}", "measured")
        for pictures, accuracy in zip(curve.pictures, curve.accuracy, strict=True)
    ]
    most = curve.pictures[-1]
    predicted = curve.predicted(2.0)
    if predicted is not None:
        rows.append((f"{2 * most:.0f}", f"{predicted:.1%}", "predicted from these"))
    yield html.table(
        ("pictures of a class", "accuracy", ""),
        rows,
        "By cross-validation, with the class of the highest score and no threshold.",
    )
    if predicted is None:
        yield html.note("There is no trend: more pictures of the same kind may not help.")


def _wrong(taught: Taught) -> Iterator[str]:
    labels, held_out = taught.labeled.labels, taught.held_out
    figures = []
    for at in np.flatnonzero(~held_out.right)[:_PICTURES]:
        path, answered = taught.held_out_paths[at], int(held_out.answered[at])
        try:
            shown = picture(read_image(path))
        except (FrameError, OSError):  # gone since
            continue
        answer = "unknown" if answered == UNKNOWN else labels[answered]
        score = held_out.scores[at].max()
        said = f"predicted: {answer} ({score:.0%})\nactual: {labels[int(held_out.truth[at])]}"
        figures.append(html.figure(shown, f"{said}\n{path.name}"))
    yield html.note("Of the held-out pictures.")
    yield html.gallery(figures) if figures else "<p>None.</p>"
