# SPDX-License-Identifier: Apache-2.0
"""Pictures of results: classes over time, latency and throughput by threads. They need matplotlib."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import need
from repghost_ros.output import whole_file
from repghost_ros.runs.benchmark import PUBLISHED, Timing
from repghost_ros.runs.reliability import BINS, Reliability
from repghost_ros.runs.replay import Summary
from repghost_ros.zoo.catalogue import front
from repghost_ros.zoo.record import Record

SHOWN = 20
"""Classes that have a row of their own; rarer ones share the last."""
_OTHER = "other classes"
_LONGEST = 28  # letters of a name


@contextmanager
def _figure(
    target: Path | io.StringIO, columns: int, width: float, height: float
) -> Iterator[tuple[Any, Any]]:
    """Figure and axes, saved at the end of the block: as a file, or as SVG.

    Raises:
        DependencyError: matplotlib is missing.
        OutputError: the file cannot be written.

    """
    need("matplotlib", "pip install matplotlib").use("Agg")
    pyplot = need("matplotlib.pyplot", "pip install matplotlib")
    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
    try:
        yield figure, axes
        if isinstance(target, io.StringIO):
            figure.savefig(target, format="svg")
        else:
            with whole_file(target) as partial:
                figure.savefig(partial, dpi=100)
    finally:
        pyplot.close(figure)


def plot_models(target: Path, records: Sequence[Record]) -> None:
    """Draw published int8 accuracy over published frames a second; the front is a line.

    Args:
        target: .png, .svg or .pdf.
        records: of the catalogue; those without published figures are left out.

    Raises:
        DependencyError: matplotlib is missing.
        OutputError: the file cannot be written.

    """
    known = [(record, record.published) for record in records if record.published]
    best = front(records)
    with _figure(target, 1, 10, 6) as (_, axes):
        for family in dict.fromkeys(record.family for record, _ in known):
            own = [figures for record, figures in known if record.family == family]
            axes.scatter(
                [figures.fps for figures in own],
                [figures.int8_top1 for figures in own],
                **{"label": family, "marker": "*" if family == "RepGhost" else "o", "s": 40},
            )
        line = [figures for name in best for record, figures in known if record.name == name]
        axes.plot([point.fps for point in line], [point.int8_top1 for point in line], "k--", lw=0.8)
        for name, figures in zip(best, line, strict=True):
            axes.annotate(name, (figures.fps, figures.int8_top1), fontsize=8, rotation=20)
        axes.set(
            xscale="log",
            xlabel="frames a second on the RDK X5, four threads (published)",
            ylabel="ImageNet top-1 of int8, percent (published)",
        )
        axes.legend(fontsize=7, ncols=2)


def plot_confusion(target: Path | io.StringIO, names: Sequence[str], counts: np.ndarray) -> None:
    """Draw a confusion matrix: rows are the truth, columns the model's answers.

    Args:
        target: .png, .svg or .pdf, or where to put SVG.
        names: of rows and columns.
        counts: int (names, names).

    """
    side = 2.2 + 0.32 * len(names)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = [_plain(name) for name in names]
    with _figure(target, 1, side + 0.6, side) as (_, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                *(column, row, str(counts[row, column])),
                **{"ha": "center", "va": "center", "color": color, "fontsize": 7},
            )
        axes.set_xticks(range(len(names)), names, rotation=45, ha="left", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set(xlabel="predicted", ylabel="actual")


def plot_reliability(target: Path | io.StringIO, measured: dict[str, Reliability]) -> None:
    """Draw accuracy over confidence; a calibrated model lies on the diagonal."""
    with _figure(target, 2, 9, 3.6) as (_, (left, right)):
        left.plot((0, 1), (0, 1), "--", c="gray", lw=1, label="calibrated")
        width = 0.8 / len(measured) / BINS
        for number, (name, curve) in enumerate(measured.items()):
            filled = [i for i in range(BINS) if curve.counts[i]]
            left.plot(
                [curve.scores[i] for i in filled],
                [curve.hits[i] for i in filled],
                "-o",
                label=f"{name}: error {curve.error:.1%}",
            )
            edges = [(i + 0.1) / BINS + number * width for i in range(BINS)]
            right.bar(edges, curve.counts, width, align="edge")
        left.set(xlabel="score", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        right.set(xlabel="score", ylabel="pictures", xlim=(0, 1))
        left.legend(fontsize="small", loc="lower right")


def plot_timeline(target: Path | io.StringIO, summary: Summary) -> None:
    """Draw the best class over the seconds since the first frame, darker where its score is higher.

    Raises:
        DependencyError: matplotlib is missing.

    """
    rows = _rows(summary.classes)
    start = min((best.moment_ns for best in summary.best), default=0)
    with _figure(target, 1, 10, 1.5 + 0.3 * len(rows)) as (figure, axes):
        points = axes.scatter(
            [(best.moment_ns - start) / 1e9 for best in summary.best],
            [rows.get(best.class_id, len(rows) - 1) for best in summary.best],
            c=[best.score for best in summary.best],
            marker="|",
            s=120,
            vmin=0,
            vmax=1,
            cmap="viridis_r",
            rasterized=True,  # of a long replay, SVG has a shape a frame
        )
        axes.set_yticks(range(len(rows)), [_plain(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        title = f"best class of {len(summary.best)} frames"
        if _OTHER in rows:
            title += f", {len(summary.classes)} classes"
        axes.set(xlabel="seconds", title=title)
        figure.colorbar(points, label="score")


def _plain(name: str) -> str:
    """Escape dollars, which begin formulas, and shorten ImageNet's long names."""
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return name.replace("$", r"\$")


def _rows(classes: Counter[str]) -> dict[str, int]:
    """Return the row of each class, the most frequent ones on top."""
    names = [name for name, _ in classes.most_common()]
    if len(names) > SHOWN:
        names = [*names[: SHOWN - 1], _OTHER]
    return {name: row for row, name in enumerate(names)}


def plot_timings(path: Path, timings: Sequence[Timing], machine: str) -> None:
    """Draw latency and throughput by threads, a line per model and batch; published figures are dashed.

    Args:
        path: .png, .svg or .pdf.
        timings: measured and published ones.
        machine: what was measured on, for the title.

    Raises:
        DependencyError: matplotlib is missing.

    """
    colors: dict[str, str] = {}
    with _figure(path, 2, 10, 4.2) as (figure, (left, right)):
        for kind in dict.fromkeys(
            (timing.model, timing.batch, timing.source) for timing in timings
        ):
            lines = [t for t in timings if (t.model, t.batch, t.source) == kind]
            model, batch, source = kind
            style = "--s" if source == PUBLISHED else "-o"
            series = model if batch == 1 else f"{model}, batch {batch}"
            color = colors.setdefault(series, f"C{len(colors)}")
            threads = [timing.threads for timing in lines]
            label = f"{series}, {source}"
            latencies = [timing.latency_ms for timing in lines]
            left.plot(threads, latencies, style, c=color, label=label, clip_on=False)
            rates = [np.nan if timing.fps is None else timing.fps for timing in lines]
            right.plot(threads, rates, style, c=color, label=label, clip_on=False)
        ticks = sorted({timing.threads for timing in timings})
        for axes in (left, right):
            axes.set_xticks(ticks)
            axes.grid(alpha=0.3)
        left.set(title=f"latency, {timings[0].work}", xlabel="threads", ylabel="ms")
        right.set(title="throughput", xlabel="threads", ylabel="FPS")
        for axes in (left, right):
            axes.set_ylim(0, 1.1 * axes.dataLim.y1)
        left.legend(fontsize="small")
        figure.suptitle(machine, fontsize="small")
