"""Classify every image of a ROS 1 or ROS 2 bag offline, and compare with an earlier result.

With --compare this is a regression test: it fails where the answers changed by more than allowed. BAG
may then be a result itself (.csv, .jsonl, a bag of classifications); no model is run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_json,
    add_model,
    check_plot,
    open_model,
    positive,
    print_error,
    print_json,
    print_table,
    share,
    with_bar,
)
from repghost_ros.errors import ParameterError, SourceError, UsageError
from repghost_ros.results import CLASS_IDS, Reporting
from repghost_ros.runs.answers import (
    Difference,
    compare,
    is_results,
    open_results,
    read_results,
)
from repghost_ros.runs.replay import Answer, Summary, replay
from repghost_ros.sources.bags import COMPRESSED, IMAGE, STORAGES, Bag
from repghost_ros.vision.nv12 import COLOR_RANGES
from repghost_ros.vision.view import View

HELP = "classify a bag offline; compare with an earlier result"
_SHOWN = 5  # refused or changed frames printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost replay`."""
    parser.add_argument("bag", type=Path, metavar="BAG")
    parser.add_argument("--topic", default="", help="of the images (default: the only one)")
    parser.add_argument("--list", action="store_true", help="list the image topics, and no more")
    add_model(parser)
    parser.add_argument(
        "--source-color-range",
        choices=COLOR_RANGES,
        default="limited",
        help="range of the camera's own YUV frames (default: %(default)s)",
    )
    parser.add_argument("--top-k", type=positive, default=5, metavar="K", help="classes a frame")
    parser.add_argument(
        "--score-threshold",
        type=share,
        default=0.0,
        metavar="SCORE",
        help="report no class below it (default: %(default)s)",
    )
    parser.add_argument(
        "--class-id", choices=CLASS_IDS, default=CLASS_IDS[0], help="what classes are named by"
    )
    parser.add_argument(
        "--roi",
        type=_region,
        default=(0, 0, 0, 0),
        metavar="X,Y,W,H",
        help="classify this region of each frame only, in pixels",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="write the answers: .csv, .jsonl, or a bag's folder",
    )
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        default=STORAGES[0],
        help="of that bag (default: %(default)s)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the classes over time")
    parser.add_argument("--compare", type=Path, metavar="OTHER", help="an earlier result")
    parser.add_argument(
        "--compare-topic",
        default="",
        metavar="TOPIC",
        help="of OTHER's classifications, if it is a bag with several",
    )
    parser.add_argument(
        "--min-agreement",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="of frames with the same best class, else fail (default: %(default)s)",
    )
    parser.add_argument(
        "--max-drift",
        type=share,
        default=0.02,
        metavar="SCORE",
        help="by which the best class's score may change, else fail (default: %(default)s)",
    )
    add_json(parser)


def _region(text: str) -> tuple[int, ...]:
    roi = tuple(map(int, text.split(",")))
    try:
        View(roi)
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return roi


def run(options: argparse.Namespace) -> int:
    """Replay, write, summarize, compare.

    1 if the bag broke off, answers changed too much or, where nothing is compared, some were refused.
    """
    if options.list:
        return _list(options)
    if options.compare and options.out and options.compare.resolve() == options.out.resolve():
        raise UsageError("--out would overwrite what --compare compares with")
    check_plot(options.plot)
    # Before the replay, which may take long.
    expected = read_results(options.compare, options.compare_topic) if options.compare else []
    report: dict[str, Any] = {}
    failed = False
    if options.compare and is_results(options.bag):
        if options.out or options.plot:
            raise UsageError(
                f"'{options.bag}' is a result already: --out and --plot are of a replay"
            )
        answers = read_results(options.bag, options.topic)
    else:
        answers, report, failed = _replay(options)
    if options.compare:
        difference = compare(expected, answers)
        alike = (
            difference.agreement >= options.min_agreement
            and difference.max_drift <= options.max_drift
        )
        # What was refused before as well is no change.
        failed = not alike or "error" in report
        report["compared"] = {
            **asdict(difference),
            "agreement": difference.agreement,
            "alike": alike,
        }
        if not options.json:
            _print_difference(difference, options, alike)
    if options.json:
        print_json(report)
    return int(failed)


def _list(options: argparse.Namespace) -> int:
    with Bag(options.bag) as bag:
        topics = bag.topics(IMAGE, COMPRESSED)
    if options.json:
        print_json([asdict(topic) for topic in topics])
    else:
        print_table(("topic", "type", "messages"), [(t.name, t.type, t.messages) for t in topics])
    return 0


def _replay(options: argparse.Namespace) -> tuple[list[Answer], dict[str, Any], bool]:
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
                    Reporting(options.top_k, options.score_threshold, options.class_id),
                    workers=options.workers,
                )
                try:
                    for answer in with_bar(summary.count(made), topic.messages, "frame"):
                        write(answer)
                        answers.append(answer)
                except SourceError as error:  # the bag broke off: what it held before counts
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
    if options.plot:
        summary.plot(options.plot)
    runs = summary.timeline()
    report: dict[str, Any] = {
        "bag": str(options.bag),
        "topic": topic.name,
        "model": str(classifier.path),
        "backend": classifier.runtime,
        "frames": summary.frames,
        "refused": summary.refused,
        "seconds": round(seconds, 3),
        "fps": round(summary.frames / seconds, 1),
        "classes": dict(summary.classes.most_common()),
        "timeline": [
            {"class_id": name, "from_ns": first, "to_ns": last, "frames": frames}
            for name, first, last, frames in runs
        ],
    }
    if not options.json:
        print(
            f"{topic.name}: {summary.frames} frames, {summary.refused} refused, in {seconds:.1f} s "
            f"({report['fps']} fps) with {classifier.path.name} on {classifier.runtime}"
        )
        rows = [(name, count, _runs(runs, name)) for name, count in summary.classes.most_common()]
        print_table(("best class", "frames", "runs"), rows)
    if broken:
        report["error"] = str(broken)
        print_error(str(broken))
    return answers, report, bool(summary.refused or broken)


def _results(options: argparse.Namespace) -> Any:
    if options.out:
        return open_results(options.out, options.storage)
    nothing: Callable[[Answer], None] = lambda answer: None  # noqa: E731
    return nullcontext(nothing)


def _runs(runs: list[tuple[str, int, int, int]], name: str) -> int:
    return sum(run[0] == name for run in runs)


def _print_difference(difference: Difference, options: argparse.Namespace, alike: bool) -> None:
    print(
        f"compared with {options.compare}: {difference.frames} frames in both, "
        f"{difference.missing} missing, {difference.extra} new, {difference.refused} refused in both\n"
        f"same best class: {difference.agreement:.2%} (at least {options.min_agreement:.2%}); its "
        f"score changes by {difference.max_drift:.4f} at most (allowed {options.max_drift}), "
        f"{difference.mean_drift:.4f} on average"
    )
    for stamp, before, now in difference.changed[:_SHOWN]:
        print(f"  at {stamp / 1e9:.3f} s: {before} -> {now}")
    print("alike" if alike else "DIFFERENT")
