# SPDX-License-Identifier: Apache-2.0
"""Classify every image of a ROS 1 or ROS 2 bag offline, and compare with an earlier result.

With --compare this is a regression test: it fails if the answers changed by more than allowed. BAG
may then be a result itself (.csv, .jsonl, a bag of classifications); no model is run.

Several bags, a folder or list of them, or URLs are replayed on all cores or a Ray cluster (--on)
into the folder --out: one result per bag and summary.json. Finished bags are not replayed again.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from repghost_ros.cli import replay_many
from repghost_ros.cli.common import (
    add_model,
    add_reporting,
    check_plot,
    check_report,
    open_model,
    reporting,
    share,
    with_bar,
)
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import print_error
from repghost_ros.engine.results import CLASS_IDS
from repghost_ros.errors import ParameterError, SourceError, UsageError
from repghost_ros.runs.answers import is_results, open_results, read_results
from repghost_ros.runs.difference import Difference, compare
from repghost_ros.runs.pages import write_replay
from repghost_ros.runs.plots import plot_timeline
from repghost_ros.runs.replay import Answer, Summary, replay
from repghost_ros.sources.bag_writer import STORAGES
from repghost_ros.sources.bags import Bag, Topic
from repghost_ros.sources.types import COMPRESSED, IMAGE
from repghost_ros.vision.nv12 import COLOR_RANGES
from repghost_ros.vision.view import View

HELP = "classify a bag offline; compare with an earlier result"
_SHOWN = 5  # refused or changed frames printed
_MIN_AGREEMENT, _MAX_DRIFT = 1.0, 0.02


@dataclass(frozen=True)
class TopicsReport:
    """The image topics of a bag."""

    topics: list[Topic]
    failed = False

    def text(self) -> Iterator[str | Table]:
        """A table."""
        rows = [(topic.name, topic.type, topic.messages) for topic in self.topics]
        yield Table(("topic", "type", "messages"), rows)

    def as_json(self) -> dict[str, Any]:
        """One dict per topic."""
        return {"results": [asdict(topic) for topic in self.topics]}


@dataclass(frozen=True)
class Compared:
    """How an earlier result differs from this one, and whether it differs too much."""

    path: Path
    difference: Difference
    min_agreement: float
    max_drift: float

    @property
    def alike(self) -> bool:
        """Whether all changes are within the allowed limits."""
        return (
            self.difference.agreement >= self.min_agreement
            and self.difference.max_drift <= self.max_drift
        )

    def text(self) -> Iterator[str]:
        """The difference in words, and the first frames whose best class changed."""
        difference = self.difference
        yield (
            f"compared with {self.path}: {difference.frames} frames in both, "
            f"{difference.missing} missing, {difference.extra} new, {difference.refused} refused in "
            f"both\nsame best class: {difference.agreement:.2%} (at least "
            f"{self.min_agreement:.2%}); its score changes by {difference.max_drift:.4f} at most "
            f"(allowed {self.max_drift}), {difference.mean_drift:.4f} on average"
        )
        for stamp, before, now in difference.changed[:_SHOWN]:
            yield f"  at {stamp / 1e9:.3f} s: {before} -> {now}"
        yield "alike" if self.alike else "DIFFERENT"

    def as_json(self) -> dict[str, Any]:
        """The fields of the difference, and the verdict."""
        agreement = self.difference.agreement
        return {**asdict(self.difference), "agreement": agreement, "alike": self.alike}


@dataclass
class ReplayReport:
    """A replay's results, and how they differ from an earlier one."""

    about: dict[str, Any] = field(default_factory=dict)
    """Bag, topic, model, backend and speed; empty where the answers come from a result."""
    summary: Summary = field(default_factory=Summary)
    error: str = ""
    """Why the bag broke off; empty if it did not."""
    compared: Compared | None = None

    @property
    def failed(self) -> bool:
        """Whether the bag was cut off, answers changed too much or, without a comparison, frames
        were refused; frames that were refused before as well are not a change.
        """
        unlike = not self.compared.alike if self.compared else self.summary.refused > 0
        return bool(self.error) or unlike

    def text(self) -> Iterator[str | Table]:
        """The best classes, and the difference."""
        about, summary = self.about, self.summary
        if about:
            yield (
                f"{about['topic']}: {summary.frames} frames, {summary.refused} refused, in "
                f"{about['seconds']:.1f} s ({about['fps']} fps) with {Path(about['model']).name} on "
                f"{about['backend']}"
            )
            rows = [tuple(row.values()) for row in self._classes()]
            yield Table(("best class", "frames", "runs"), rows)
        if self.compared:
            yield from self.compared.text()

    def as_json(self) -> dict[str, Any]:
        """One dict per best class, and the runs of one class in order."""
        return {
            **self.about,
            "frames": self.summary.frames,
            "refused": self.summary.refused,
            "results": self._classes(),
            "timeline": [
                {"class_id": name, "from_ns": first, "to_ns": last, "frames": frames}
                for name, first, last, frames in self.summary.timeline()
            ],
            **({"error": self.error} if self.error else {}),
            **({"compared": self.compared.as_json()} if self.compared else {}),
        }

    def _classes(self) -> list[dict[str, Any]]:
        runs = Counter(name for name, *_ in self.summary.timeline())
        return [
            {"class_id": name, "frames": frames, "runs": runs[name]}
            for name, frames in self.summary.classes.most_common()
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost replay`."""
    parser.add_argument("bags", nargs="+", metavar="BAG|DIR|LIST.txt|URL")
    parser.add_argument("--topic", default="", help="image topic (default: the only one)")
    parser.add_argument("--list", action="store_true", help="only list the image topics")
    add_model(parser)
    parser.add_argument(
        "--source-color-range",
        choices=COLOR_RANGES,
        default="limited",
        help="range of the camera's YUV frames (default: %(default)s)",
    )
    add_reporting(parser)
    parser.add_argument(
        "--score-threshold",
        type=share,
        default=0.0,
        metavar="SCORE",
        help="least score of a reported class (default: %(default)s)",
    )
    parser.add_argument(
        "--smoothing",
        type=share,
        default=0.0,
        metavar="WEIGHT",
        help="weight of earlier frames in a mean of the probabilities, below 1 (default: none)",
    )
    parser.add_argument(
        "--class-id", choices=CLASS_IDS, default=CLASS_IDS[0], help="how classes are named"
    )
    parser.add_argument(
        "--roi",
        type=_roi,
        default=(0, 0, 0, 0),
        metavar="X,Y,W,H",
        help="classify only this region of each frame, in pixels",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="where to write the answers: .csv, .jsonl, .parquet, or a folder for a bag",
    )
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        default=STORAGES[0],
        help="storage of that bag (default: %(default)s)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot the classes over time")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write an .html report: classes, timeline, runs"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="OTHER", help="compare with an earlier result"
    )
    parser.add_argument(
        "--compare-topic",
        default="",
        metavar="TOPIC",
        help="topic of the classifications, if OTHER is a bag with several",
    )
    parser.add_argument(
        "--min-agreement",
        type=share,
        metavar="SHARE",
        help=f"fail if fewer frames keep their best class (default: {_MIN_AGREEMENT:g})",
    )
    parser.add_argument(
        "--max-drift",
        type=share,
        metavar="SCORE",
        help=f"fail if a best class's score changes by more (default: {_MAX_DRIFT:g})",
    )
    replay_many.add_arguments(parser)


def _roi(text: str) -> tuple[int, ...]:
    try:
        roi = tuple(map(int, text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y,W,H in whole pixels") from error
    try:
        View(roi)
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return roi


def run(options: argparse.Namespace) -> ReplayReport | TopicsReport | replay_many.ManyReport:
    """Replay, write, summarize, compare."""
    _check_comparison(options)
    check_report(options.report)
    if options.smoothing == 1.0:
        raise UsageError("--smoothing must be below 1: with 1 later frames would not count")
    if replay_many.are_many(options):
        if options.report:
            raise UsageError("--report is of one bag")
        if options.smoothing:  # many bags are answered in parts
            raise UsageError("--smoothing is of one bag")
        return replay_many.run(options)
    options.bag = Path(options.bags[0])
    if options.list:
        with Bag(options.bag) as bag:
            return TopicsReport(bag.topics(IMAGE, COMPRESSED))
    check_plot(options.plot)
    # Checked before the replay, which may take long.
    expected = read_results(options.compare, options.compare_topic) if options.compare else []
    if options.compare and is_results(options.bag):
        if options.out or options.plot or options.report:
            raise UsageError(
                f"'{options.bag}' is a result already: --out, --plot and --report are of a replay"
            )
        report = ReplayReport()
        answers = list(report.summary.count(read_results(options.bag, options.topic)))
    else:
        report, answers = _replay(options)
    if options.compare:
        report.compared = Compared(
            options.compare,
            compare(expected, answers),
            options.min_agreement,
            options.max_drift,
        )
    return report


def _check_comparison(options: argparse.Namespace) -> None:
    """Refuse options that exclude each other, and fill in defaults."""
    if not options.compare:
        for option in ("min_agreement", "max_drift", "compare_topic"):
            if getattr(options, option) not in (None, ""):
                name = option.replace("_", "-")
                raise UsageError(f"--{name} is about a comparison: name the other with --compare")
    elif options.out and options.compare.resolve() == options.out.resolve():
        raise UsageError("--out would overwrite what --compare compares with")
    if options.min_agreement is None:
        options.min_agreement = _MIN_AGREEMENT
    if options.max_drift is None:
        options.max_drift = _MAX_DRIFT


def _replay(options: argparse.Namespace) -> tuple[ReplayReport, list[Answer]]:
    with Bag(options.bag) as bag:
        topic = bag.image_topic(options.topic)
        classifier = open_model(options)
        summary, answers, broken = Summary(), [], None
        started = time.monotonic()
        try:
            with _results(options) as write:
                made = replay(
                    bag,
                    topic.name,
                    classifier,
                    View(options.roi, options.resize, options.source_color_range),
                    reporting(
                        options,
                        score_threshold=options.score_threshold,
                        class_id=options.class_id,
                    ),
                    smoothing=options.smoothing,
                    workers=options.workers,
                )
                try:
                    for answer in with_bar(summary.count(made), topic.messages, "frame"):
                        write(answer)
                        answers.append(answer)
                except SourceError as error:  # the bag is cut off: everything before the cut counts
                    broken = error
        finally:
            classifier.close()
    seconds = time.monotonic() - started
    if not answers:
        raise broken or SourceError(f"bag '{options.bag}' holds no message on '{topic.name}'")
    for answer in [answer for answer in answers if answer.error][:_SHOWN]:
        print_error(f"frame at {answer.stamp_ns / 1e9:.3f} s refused: {answer.error}")
    if summary.refused > _SHOWN:
        print_error(f"and {summary.refused - _SHOWN} more frames refused")
    if broken:
        print_error(str(broken))
    if options.plot:
        plot_timeline(options.plot, summary)
    about = {
        "bag": str(options.bag),
        "topic": topic.name,
        "model": str(classifier.path),
        "backend": classifier.runtime,
        "seconds": round(seconds, 3),
        "fps": round(summary.frames / seconds, 1),
    }
    if options.report:
        write_replay(options.report, about, summary)
    return ReplayReport(about, summary, str(broken or "")), answers


def _results(options: argparse.Namespace) -> Any:
    if options.out:
        return open_results(options.out, options.storage, top_k=options.top_k, bag=str(options.bag))
    nothing: Callable[[Answer], None] = lambda answer: None  # noqa: E731
    return nullcontext(nothing)
