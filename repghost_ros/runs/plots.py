"""Pictures of results: classes over time, latency and throughput by threads. They need matplotlib."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import need
from repghost_ros.output import whole_file
from repghost_ros.runs.benchmark import PUBLISHED, Timing
from repghost_ros.runs.replay import Summary

SHOWN = 20
"""Classes that have a row of their own; rarer ones share the last."""
_OTHER = "other classes"


@contextmanager
def _figure(path: Path, columns: int, width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """Figure and axes, saved at the end of the block.

    Raises:
        DependencyError: matplotlib is missing.

    """
    need("matplotlib", "pip install matplotlib").use("Agg")
    pyplot = need("matplotlib.pyplot", "pip install matplotlib")
    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
    try:
        yield figure, axes
        with whole_file(path) as partial:
            figure.savefig(partial, dpi=100)
    finally:
        pyplot.close(figure)


def plot_timeline(path: Path, summary: Summary) -> None:
    """Draw the best class over the seconds since the first frame, darker where it is surer.

    Raises:
        DependencyError: matplotlib is missing.

    """
    rows = _rows(summary.classes)
    start = min((stamp for stamp, _, _ in summary.best), default=0)
    with _figure(path, 1, 10, 1.5 + 0.3 * len(rows)) as (figure, axes):
        points = axes.scatter(
            [(stamp - start) / 1e9 for stamp, _, _ in summary.best],
            [rows.get(class_id, len(rows) - 1) for _, class_id, _ in summary.best],
            c=[score for _, _, score in summary.best],
            marker="|",
            s=120,
            vmin=0,
            vmax=1,
            cmap="viridis_r",
        )
        # A dollar would begin a formula.
        axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        title = f"best class of {len(summary.best)} frames"
        if _OTHER in rows:
            title += f", {len(summary.classes)} classes"
        axes.set(xlabel="seconds", title=title)
        figure.colorbar(points, label="score")


def _rows(classes: Counter[str]) -> dict[str, int]:
    """The row of each class, the most frequent ones on top."""
    names = [name for name, _ in classes.most_common()]
    if len(names) > SHOWN:
        names = [*names[: SHOWN - 1], _OTHER]
    return {name: row for row, name in enumerate(names)}


def plot_timings(path: Path, timings: Sequence[Timing], machine: str) -> None:
    """Draw latency and throughput by threads, a line a model; what is published is dashed.

    Args:
        path: .png, .svg or .pdf.
        timings: measured and published ones.
        machine: what was measured on, for the title.

    Raises:
        DependencyError: matplotlib is missing.

    """
    colors: dict[str, str] = {}
    with _figure(path, 2, 10, 4.2) as (figure, (left, right)):
        for model, source in dict.fromkeys((timing.model, timing.source) for timing in timings):
            lines = [t for t in timings if (t.model, t.source) == (model, source)]
            style = "--s" if source == PUBLISHED else "-o"
            color = colors.setdefault(model, f"C{len(colors)}")
            threads = [timing.threads for timing in lines]
            label = f"{model}, {source}"
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
