# SPDX-License-Identifier: Apache-2.0
"""Time inference on this machine, next to the figures published for the board."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_model,
    check_plot,
    model_from,
    positive,
    positive_float,
)
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import with_bar
from repghost_ros.runs.benchmark import (
    END_TO_END,
    INFERENCE,
    MEASURED,
    PUBLISHED,
    Timing,
    environment,
    measure,
    published_timings,
    warm_up,
    write_csv,
)
from repghost_ros.runs.plots import plot_timings

HELP = "latency and throughput on this machine, with the published ones"


@dataclass(frozen=True)
class BenchReport:
    """The timings; a model's published figures follow its measured ones."""

    timings: list[Timing]
    seconds: float
    environment: dict[str, Any]
    failed = False

    def text(self) -> Iterator[str | Table]:
        """Yield a table and a note on its figures."""

        def shown(value: float | None, digits: int = 2) -> str | None:
            return None if value is None else f"{value:.{digits}f}"

        yield Table(
            ("model", "on", "params M", "threads", "batch", "mean ms", "p50", "p90", "p99", "FPS"),
            [
                (
                    timing.model,
                    f"{timing.backend}, published" if _is_published(timing) else timing.backend,
                    *(shown(timing.params_m), timing.threads, timing.batch),
                    shown(timing.mean_ms),
                    *(shown(timing.latency_ms), shown(timing.p90_ms), shown(timing.p99_ms)),
                    shown(timing.fps, 0),
                )
                for timing in self.timings
            ],
        )
        here, work = self.environment, self.timings[0].work
        yield (
            f"\n{MEASURED}: {work}, {self.seconds:g} s each after {warm_up(self.seconds):g} s of "
            f"warm-up, {here['processor']}, {here['cores']} CPU cores, load {here['load_1min']}"
        )
        if any(map(_is_published, self.timings)):
            yield (
                "published: by the RDK model zoo for the RDK X5, inference alone; latency stands "
                "under p50; parameters before fusing"
            )

    def as_json(self) -> dict[str, Any]:
        """One dict per timing, and the environment."""
        return {
            "seconds": self.seconds,
            "warm_up_s": warm_up(self.seconds),
            "environment": self.environment,
            "results": [asdict(timing) for timing in self.timings],
        }


def _is_published(timing: Timing) -> bool:
    return timing.source == PUBLISHED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost bench`."""
    add_model(parser, pictures=False)
    parser.add_argument(
        "--threads",
        type=_thread_counts,
        default=[1, 4],
        metavar="N,N,...",
        help="numbers of parallel inferences (default: 1,4 as published)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_float,
        default=3.0,
        metavar="S",
        help="duration of a measurement in seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--end-to-end",
        action="store_true",
        help="include decoding a 640x480 JPEG and converting it to NV12",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot the table, PNG or SVG")


def _thread_counts(text: str) -> list[int]:
    return [positive(number) for number in text.split(",")]


def run(options: argparse.Namespace) -> BenchReport:
    """Measure each model with each number of threads; one for batches alone and in batches."""
    check_plot(options.plot)
    timings: list[Timing] = []
    here = environment()  # the load before this command adds its own
    work = END_TO_END if options.end_to_end else INFERENCE
    lines = [(model, threads) for model in options.model for threads in options.threads]
    for model, threads in with_bar(lines, len(lines), "measurement"):
        classifier = model_from(options, model)
        try:
            # A model for batches is timed with a lone frame, too.
            for batch in sorted({1, classifier.batch}):
                timings.append(measure(classifier, threads, options.seconds, work, batch))
        finally:
            classifier.close()
    timings = [
        timing
        for model in dict.fromkeys(timing.model for timing in timings)
        for timing in [*(t for t in timings if t.model == model), *published_timings(model)]
    ]
    if options.csv:
        write_csv(options.csv, timings)
    if options.plot:
        machine = f"{MEASURED}, {work}: {here['host']}, {here['processor']}, {here['cores']} cores"
        plot_timings(options.plot, timings, machine)
    return BenchReport(timings, options.seconds, here)
