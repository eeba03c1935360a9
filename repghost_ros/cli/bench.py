"""Time inference on this machine, beside what the model zoo published for its board."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_model,
    check_plot,
    open_model,
    positive,
    positive_float,
    with_bar,
)
from repghost_ros.cli.report import Table
from repghost_ros.runs.batch import cores
from repghost_ros.runs.benchmark import MEASURED, Timing, measure, published, write_csv
from repghost_ros.runs.plots import plot_timings
from repghost_ros.zoo.catalogue import MODELS

HELP = "latency and throughput here, beside the published ones"


@dataclass(frozen=True)
class BenchReport:
    """The timings, a model's published ones after its measured ones."""

    timings: list[Timing]
    seconds: float
    failed = False

    def text(self) -> Iterator[str | Table]:
        """A table, and what its figures mean."""

        def shown(value: float | None, digits: int) -> str | None:
            return None if value is None else f"{value:.{digits}f}"

        yield Table(
            ("model", "figures", "on", "params M", "threads", "ms", "p99 ms", "FPS"),
            [
                (
                    *(timing.model, timing.source, timing.backend, shown(timing.params_m, 2)),
                    *(timing.threads, shown(timing.latency_ms, 2), shown(timing.p99_ms, 2)),
                    shown(timing.fps, 0),
                )
                for timing in self.timings
            ],
        )
        yield (
            f"\n{MEASURED}: inference alone, {cores()} CPU cores, median over {self.seconds:g} s"
        )
        if any(timing.model in MODELS for timing in self.timings):
            yield "published: by the RDK model zoo for the RDK X5; parameters before fusing"

    def as_json(self) -> dict[str, Any]:
        """A dict a timing."""
        return {"results": [asdict(timing) for timing in self.timings]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost bench`."""
    add_model(parser, several=True)
    parser.add_argument(
        "--threads",
        type=_thread_counts,
        default=[1, 4],
        metavar="N,N,...",
        help="how many inferences at a time (default: 1,4 as published)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_float,
        default=3.0,
        metavar="S",
        help="of each line (default: %(default)s)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it, PNG or SVG")


def _thread_counts(text: str) -> list[int]:
    return [positive(number) for number in text.split(",")]


def run(options: argparse.Namespace) -> BenchReport:
    """Measure one line a model and number of threads."""
    check_plot(options.plot)
    timings: list[Timing] = []
    lines = [(model, threads) for model in options.model for threads in options.threads]
    for model, threads in with_bar(lines, len(lines), "measurement"):
        classifier = open_model(options, model)
        try:
            timings.append(measure(classifier, threads, options.seconds))
        finally:
            classifier.close()
    timings = [
        timing
        for model in dict.fromkeys(timing.model for timing in timings)
        for timing in [*(t for t in timings if t.model == model), *published(model)]
    ]
    if options.csv:
        write_csv(options.csv, timings)
    if options.plot:
        machine = f"{MEASURED}: {platform.node()}, {cores()} CPU cores, {platform.machine()}"
        plot_timings(options.plot, timings, machine)
    return BenchReport(timings, options.seconds)
