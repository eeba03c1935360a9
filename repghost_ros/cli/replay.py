# SPDX-License-Identifier: Apache-2.0
"""Classify every image of a ROS 1 or ROS 2 bag offline, and compare with an earlier result.

With --compare this is a regression test: it fails if the answers changed by more than allowed. BAG
may then be a result itself (.csv, .jsonl, a bag of classifications); no model is run.

Several bags, a folder or list of them, or URLs are replayed on all cores or a Ray cluster (--on)
into the folder --out: one result per bag and summary.json. Finished bags are not replayed again.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from repghost_ros.cli import replay_boxes, replay_many
from repghost_ros.cli.common import (
    add_model,
    add_reporting,
    add_view,
    check_plot,
    check_report,
    fraction,
    model_from,
    reporting,
    view,
)
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import with_bar
from repghost_ros.engine.results import CLASS_IDS
from repghost_ros.errors import SourceError, UsageError
from repghost_ros.runs.answers import is_results, open_results, read_results
from repghost_ros.runs.difference import Difference, compare
from repghost_ros.runs.html import count
from repghost_ros.runs.pages import write_replay
from repghost_ros.runs.plots import plot_timeline
from repghost_ros.runs.replay import Answer, ReplayOptions, Summary, replay
from repghost_ros.sources.bag_writer import STORAGES
from repghost_ros.sources.bags import Bag, BagTopic
from repghost_ros.sources.types import COMPRESSED, IMAGE
from repghost_ros.vision.nv12 import COLOR_RANGES
from repghost_ros.zoo.onnx_graph import model_sha256

HELP = "classify a bag offline; compare with an earlier result"
_SHOWN = 5  # refused, failed or changed frames listed
_MIN_AGREEMENT, _MAX_DRIFT = 1.0, 0.02
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TopicsReport:
    """The image topics of a bag."""

    topics: list[BagTopic]
    failed = False

    def text(self) -> Iterator[str | Table]:
        """Yield a table."""
        rows = [(topic.name, topic.type, topic.messages) for topic in self.topics]
        yield Table(("topic", "type", "messages"), rows)

    def as_json(self) -> dict[str, Any]:
        """Return one dict per topic."""
        return {"results": [asdict(topic) for topic in self.topics]}


@dataclass(frozen=True)
class CompareOptions:
    """The options of a comparison with an earlier result."""

    path: Path
    topic: str
    min_agreement: float
    max_drift: float

    @classmethod
    def of(cls, options: argparse.Namespace) -> CompareOptions | None:
        """Return what the command line asks for, None where it compares nothing.

        Raises:
            UsageError: options exclude each other.

        """
        if not options.compare:
            for option in ("min_agreement", "max_drift", "compare_topic"):
                if getattr(options, option) not in (None, ""):
                    name = option.replace("_", "-")
                    raise UsageError(f"--{name} needs --compare OTHER")
            return None
        if options.out and options.compare.resolve() == options.out.resolve():
            raise UsageError("--out would overwrite what --compare compares with")
        return cls(
            options.compare,
            options.compare_topic,
            _MIN_AGREEMENT if options.min_agreement is None else options.min_agreement,
            _MAX_DRIFT if options.max_drift is None else options.max_drift,
        )


@dataclass(frozen=True)
class Compared:
    """The differences between an earlier result and this one, and the allowed limits."""

    comparison: CompareOptions
    difference: Difference

    @property
    def alike(self) -> bool:
        """True if all changes are within the allowed limits."""
        return (
            self.difference.agreement >= self.comparison.min_agreement
            and self.difference.max_drift <= self.comparison.max_drift
        )

    def text(self) -> Iterator[str]:
        """Yield the difference in words, and the first frames whose best class changed."""
        difference, limits = self.difference, self.comparison
        yield (
            f"compared with {limits.path}: {difference.frames} frames in both, "
            f"{difference.missing} missing, {difference.extra} new, {difference.refused} refused in "
            f"both, {difference.failed} failed\nsame best class: {difference.agreement:.2%} (at least "
            f"{limits.min_agreement:.2%}); its score changes by {difference.max_drift:.4f} at most "
            f"(allowed {limits.max_drift}), {difference.mean_drift:.4f} on average"
        )
        for change in difference.changed[:_SHOWN]:
            yield f"  at {change.moment_ns / 1e9:.3f} s: {change.before} -> {change.now}"
        yield "alike" if self.alike else "DIFFERENT"

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the difference, and the verdict."""
        agreement = self.difference.agreement
        return {**asdict(self.difference), "agreement": agreement, "alike": self.alike}


@dataclass(frozen=True)
class Replayed:
    """A bag's answers, or those of an earlier result."""

    answers: list[Answer]
    summary: Summary
    about: dict[str, Any] = field(default_factory=dict)
    """Bag, topic, model, backend and speed; empty where the answers come from a result."""
    answered_by: str = ""
    """The model in words; empty likewise."""
    error: str = ""
    """Why the bag broke off; empty if it did not."""


@dataclass(frozen=True)
class ReplayReport:
    """A replay, and how it differs from an earlier one."""

    replayed: Replayed
    compared: Compared | None

    @property
    def failed(self) -> bool:
        """True if the bag was cut off, the backend failed, answers changed too much or, without a
        comparison, frames were refused; frames that were refused before as well are not a change.
        """
        summary = self.replayed.summary
        unlike = not self.compared.alike if self.compared else summary.refused > 0
        return bool(self.replayed.error) or summary.failed > 0 or unlike

    def text(self) -> Iterator[str | Table]:
        """Yield the best classes, and the difference."""
        about, summary = self.replayed.about, self.replayed.summary
        if about:
            yield (
                f"{about['topic']}: {count(summary.frames, 'frame')}, {summary.refused} refused, "
                f"{summary.failed} failed, in {about['seconds']:.1f} s ({about['fps']} fps) with "
                f"{self.replayed.answered_by}"
            )
            rows = [tuple(row.values()) for row in self._classes()]
            yield Table(("best class", "frames", "runs"), rows)
        if self.compared:
            yield from self.compared.text()

    def as_json(self) -> dict[str, Any]:
        """Return one dict per best class, and the runs of one class in order."""
        summary, error = self.replayed.summary, self.replayed.error
        return {
            **self.replayed.about,
            "frames": summary.frames,
            "refused": summary.refused,
            "failed": summary.failed,
            "results": self._classes(),
            "timeline": [asdict(run) for run in summary.timeline()],
            **({"error": error} if error else {}),
            **({"compared": self.compared.as_json()} if self.compared else {}),
        }

    def _classes(self) -> list[dict[str, Any]]:
        summary = self.replayed.summary
        runs = Counter(run.class_id for run in summary.timeline())
        return [
            {"class_id": name, "frames": frames, "runs": runs[name]}
            for name, frames in summary.classes.most_common()
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost replay`."""
    parser.add_argument("bags", nargs="+", metavar="BAG|DIR|LIST.txt|URL")
    parser.add_argument("--topic", default="", help="image topic (default: the only one)")
    parser.add_argument("--list", action="store_true", help="only list the image topics")
    add_model(parser)
    add_view(parser)
    parser.add_argument(
        "--source-color-range",
        choices=COLOR_RANGES,
        default="limited",
        help="range of the camera's YUV frames (default: %(default)s)",
    )
    add_reporting(parser)
    parser.add_argument(
        "--smoothing",
        type=fraction,
        default=0.0,
        metavar="WEIGHT",
        help="weight of earlier frames in a mean of the probabilities, below 1 (default: none)",
    )
    parser.add_argument(
        "--class-id", choices=CLASS_IDS, default=CLASS_IDS[0], help="how results give the class"
    )
    replay_boxes.add_arguments(parser)
    _add_outputs(parser)
    _add_comparison(parser)
    replay_many.add_arguments(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
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


def _add_comparison(parser: argparse.ArgumentParser) -> None:
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
        type=fraction,
        metavar="SHARE",
        help=f"fail if fewer frames keep their best class (default: {_MIN_AGREEMENT:g})",
    )
    parser.add_argument(
        "--max-drift",
        type=fraction,
        metavar="SCORE",
        help=f"fail if a best class's score changes by more (default: {_MAX_DRIFT:g})",
    )


def run(
    options: argparse.Namespace,
) -> ReplayReport | TopicsReport | replay_many.ManyReport | replay_boxes.BoxesReplayed:
    """Replay, write, summarize, compare."""
    comparison = CompareOptions.of(options)
    check_report(options.report)
    if options.smoothing == 1.0:
        raise UsageError("--smoothing must be below 1: with 1 later frames would not count")
    wanted = ReplayOptions(
        options.topic,
        view(options, source_color_range=options.source_color_range),
        reporting(options, class_id=options.class_id),
        options.smoothing,
    )
    if options.hold and not options.detections:
        raise UsageError("--hold follows a detector's objects: give --detections TOPIC, too")
    if options.detections:
        return replay_boxes.run(options, wanted)
    if replay_many.are_many(options):
        limit = comparison.min_agreement if comparison else _MIN_AGREEMENT
        return replay_many.run(options, wanted, limit)
    bag = Path(options.bags[0])
    if options.format:
        raise UsageError(
            f"--format is for many bags; for a single bag use --out NAME.{options.format}"
        )
    if options.list:
        with Bag(bag) as opened:
            return TopicsReport(opened.topics(IMAGE, COMPRESSED))
    check_plot(options.plot)
    # Read before the replay, which may take long.
    before = read_results(comparison.path, comparison.topic) if comparison else []
    if comparison and is_results(bag):
        if options.out or options.plot or options.report:
            raise UsageError(
                f"'{bag}' is a result already: --out, --plot and --report need a bag of images"
            )
        replayed = _read(bag, options.topic)
    else:
        replayed = _replay(bag, wanted, options)
        _write(replayed, options)
    if comparison is None:
        return ReplayReport(replayed, None)
    return ReplayReport(replayed, Compared(comparison, compare(before, replayed.answers)))


def _read(path: Path, topic: str) -> Replayed:
    summary = Summary()
    return Replayed(list(summary.count(read_results(path, topic))), summary)


def _replay(path: Path, wanted: ReplayOptions, options: argparse.Namespace) -> Replayed:
    """Answer every frame of one bag; where it breaks off, everything before the cut counts."""
    summary, answers, broken = Summary(), [], None
    with Bag(path) as bag, model_from(options) as model:
        topic = bag.image_topic(wanted.topic)
        started = time.monotonic()
        with _results(path, options) as write:
            made = replay(
                *(bag, topic.name, model, wanted.view, wanted.reporting),
                smoothing=wanted.smoothing,
                workers=options.workers,
            )
            try:
                for answer in with_bar(summary.count(made), topic.messages, "frame"):
                    write(answer)
                    answers.append(answer)
            except SourceError as error:
                broken = error
        seconds = time.monotonic() - started
    if not answers:
        raise broken or SourceError(f"bag '{path}' holds no message on '{topic.name}'")
    _log_errors(answers)
    if broken:
        _log.error(str(broken))
    about = {
        "bag": str(path),
        "topic": topic.name,
        "model": str(model.path),
        "model_sha256": model_sha256(model.path),
        "backend": model.runtime,
        "resize": wanted.view.policy(model.resize),
        "seconds": round(seconds, 3),
        "fps": round(summary.frames / seconds, 1),
    }
    return Replayed(answers, summary, about, model.about(wanted.view), str(broken or ""))


def _log_errors(answers: list[Answer]) -> None:
    """Log why the first frames have no answer, and how many others have none."""
    unanswered = [answer for answer in answers if answer.error]
    for answer in unanswered[:_SHOWN]:
        _log.error("frame at %.3f s %s: %s", answer.moment_ns / 1e9, answer.outcome, answer.error)
    if len(unanswered) > _SHOWN:
        _log.error("and %d more frames refused or failed", len(unanswered) - _SHOWN)


def _results(
    bag: Path, options: argparse.Namespace
) -> AbstractContextManager[Callable[[Answer], None]]:
    if options.out:
        return open_results(options.out, options.storage, top_k=options.top_k, bag=str(bag))
    return nullcontext(lambda _: None)


def _write(replayed: Replayed, options: argparse.Namespace) -> None:
    if options.plot:
        plot_timeline(options.plot, replayed.summary)
    if options.report:
        write_replay(options.report, replayed.about, replayed.summary)
