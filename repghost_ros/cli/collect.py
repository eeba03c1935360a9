# SPDX-License-Identifier: Apache-2.0
"""Collect frames that are worth labeling from bags, videos, folders, cameras and topics.

Without a rule, every frame is kept that shows something new; --below, --margin, --class and --random
keep those that fit one of them. Pictures are written to DIR/unlabeled as they came. Interrupted, the
next run goes on where this one ended. `repghost label DIR` is next.

Of a bag or an image topic, --detections TOPIC collects what a detector's boxes show instead of whole
frames.

On a robot, --answers TOPIC takes the node's own answers, so that nothing is classified twice. The
command then gives way to every other program, the node first.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_boxes,
    add_model,
    box_choice,
    fraction,
    matcher,
    model_from,
    positive,
)
from repghost_ros.cli.terminal import with_bar
from repghost_ros.engine.model import Answered
from repghost_ros.engine.results import Reporting, Result
from repghost_ros.errors import UsageError, need, without_passwords
from repghost_ros.runs.batch import classify_each
from repghost_ros.runs.many import is_bag
from repghost_ros.runs.regions import crops
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.live import is_live, live_pictures
from repghost_ros.sources.pictures import find, pictures
from repghost_ros.teach.collecting import Collector, Wanted
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.view import View

_NICE = 15
"""How far collecting beside a node gives way: 19 is the most."""
HELP = "collect frames worth labeling"


@dataclass(frozen=True)
class Item:
    """One frame of the source."""

    number: int | None
    """In its source; None: of a camera or topic, which does not begin anew."""
    read: Callable[[], Frame]
    stamp_ns: int | None = None
    original: Path | None = None
    source: str = ""
    """The file among several; empty: the source itself."""


Offer = tuple[Item, Frame | None, tuple[Result, ...]]
"""A frame with its results, which may be empty; None where it could not be read."""


@dataclass
class CollectReport:
    """Collects while it is iterated over."""

    options: argparse.Namespace
    is_endless: bool
    """Of a camera or topic: an interrupt is how it ends."""
    failed = False

    def text(self) -> Iterator[str]:
        """Yield how many pictures were kept, and what is next."""
        about = self._collect()
        yield f"{about['frames']} frames, {about['refused']} refused, {about['kept']} kept"
        if about["full"]:
            yield f"'{self.options.out}' holds as many pictures as it may: --most, --most-mb"
        yield f"next: repghost label {self.options.out}"

    def as_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {"results": [self._collect()]}

    def _collect(self) -> dict[str, Any]:
        options = self.options
        wanted = Wanted(
            options.below,
            options.margin,
            tuple(options.only_class),
            options.random,
            options.change,
            options.most,
            int(options.most_mb * 1e6),
        )
        about: dict[str, Any] = {"out": str(options.out), "full": False}
        about |= dict.fromkeys(("frames", "refused", "kept"), 0)
        collectors: dict[str, Collector] = {}
        with ExitStack() as opened:
            offers = _offers(options, wanted, opened)
            try:
                for item, frame, results in with_bar(offers, None, "frame"):
                    source = item.source or without_passwords(options.source)
                    if source not in collectors:
                        collectors[source] = Collector(options.out, source, wanted)
                    collector = collectors[source]
                    about["full"] = collector.full
                    if collector.full:
                        break
                    about["frames"] += 1
                    if frame is None:
                        about["refused"] += 1
                        continue
                    path = collector.offer(
                        *(frame, results),
                        number=collector.seen + 1 if item.number is None else item.number,
                        stamp_ns=item.stamp_ns,
                        original=item.original,
                    )
                    if path is not None:
                        about["kept"] += 1
            except KeyboardInterrupt:
                if not self.is_endless:
                    raise
            finally:
                for collector in collectors.values():
                    collector.close()
        return about


def _offers(options: argparse.Namespace, wanted: Wanted, opened: ExitStack) -> Iterable[Offer]:
    """Return the frames to choose from, classified if the choice depends on that."""
    if options.answers:
        return _answered(options)
    items = _items(options, opened)
    if wanted.below is None and wanted.margin is None and not wanted.classes:
        return ((item, _frame(item), ()) for item in items)
    model = opened.enter_context(model_from(options))
    seen = View(resize=options.resize, interpolation=options.interpolation)
    reporting = Reporting(top_k=2, unknown="best")
    outcomes = classify_each(model, items, lambda item: item.read(), seen, reporting)
    return (
        (outcome.request.message, outcome.frame, outcome.results)
        if isinstance(outcome, Answered)
        else (outcome.request.message, None, ())
        for outcome in outcomes
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `repghost collect`."""
    parser.add_argument("source", metavar="BAG|VIDEO|DIR|CAMERA|URL|TOPIC")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--topic", default="", help="of a bag with several image topics")
    parser.add_argument(
        "--every",
        type=positive,
        default=1,
        metavar="N",
        help="look at every Nth frame (default: 1)",
    )
    parser.add_argument(
        "--below", type=fraction, metavar="SCORE", help="keep frames whose best score is below"
    )
    parser.add_argument(
        "--margin",
        type=fraction,
        metavar="SCORE",
        help="keep frames whose two best scores differ by less",
    )
    parser.add_argument(
        "--class",
        dest="only_class",
        action="append",
        default=[],
        metavar="NAME",
        help="keep frames whose best class is this; may be given several times",
    )
    parser.add_argument(
        "--random", type=fraction, default=0.0, metavar="SHARE", help="keep a share of all frames"
    )
    parser.add_argument(
        "--change",
        type=float,
        default=4.0,
        metavar="LEVELS",
        help="mean difference, of 255, from every kept picture (default: %(default)s; 0: any)",
    )
    parser.add_argument(
        "--most", type=positive, default=500, metavar="N", help="pictures of DIR (default: 500)"
    )
    parser.add_argument(
        "--most-mb", type=float, default=1000.0, metavar="MB", help="size of DIR (default: 1000)"
    )
    parser.add_argument(
        "--answers",
        default="",
        metavar="TOPIC",
        help="with a topic: the node's answers to its images, instead of a model",
    )
    add_boxes(parser)
    add_model(parser)
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], help="remaining arguments go to ROS"
    )


def run(options: argparse.Namespace) -> CollectReport:
    """Return what collects."""
    is_topic = _is_topic(options.source)
    if options.answers and not is_topic:
        raise UsageError(f"--answers is for a topic, and '{options.source}' is none")
    if options.detections and not (is_topic or is_bag(Path(options.source))):
        raise UsageError(f"--detections is for a bag or a topic, and '{options.source}' is neither")
    if options.detections and options.answers:
        raise UsageError("--answers is of whole images: leave it out beside --detections")
    return CollectReport(options, is_topic or is_live(options.source))


def _is_topic(source: str) -> bool:
    return source.startswith("/") and not Path(source).exists()


def _frame(item: Item) -> Frame | None:
    try:
        return item.read()
    except Exception:  # it is counted
        return None


def _items(options: argparse.Namespace, opened: ExitStack) -> Iterator[Item]:
    """Open the source: its frames, every Nth of them."""
    source = options.source
    if _is_topic(source):
        listening = need("repghost_ros.ros.listening", "source a ROS 2 installation")
        if options.detections:
            about = (options.detections, matcher(options), box_choice(options), options.ros_args)
            arrays = enumerate(listening.detected(source, *about))
            return (
                Item(None, read, stamp_ns)
                for number, shown in arrays
                if number % options.every == 0
                for read, stamp_ns in shown
            )
        made = enumerate(listening.image_readers(source, options.ros_args))
        return (Item(None, read) for number, read in made if number % options.every == 0)
    if is_live(source):
        return (Item(None, each.frame) for each in live_pictures(source, every=options.every))
    path = Path(source)
    if is_bag(path):
        bag = opened.enter_context(Bag(path))
        topic = bag.image_topic(options.topic).name
        if options.detections:
            shown = crops(
                *(bag, topic, options.detections, matcher(options), box_choice(options)),
                every=options.every,
            )
            of_boxes = f"{source} {options.detections}"  # whose frames are numbered otherwise
            return (Item(number, read, stamp, None, of_boxes) for number, stamp, read in shown)
        messages = enumerate(bag.messages(topic))
        return (
            Item(number, recorded.frame, recorded.stamp_ns)
            for number, recorded in messages
            if number % options.every == 0
        )
    return _of_files(find([path], without=[options.out.resolve()]), options.every)


def _answered(options: argparse.Namespace) -> Iterator[Offer]:
    """Listen to a topic's images and to the node's answers, every Nth of them."""
    listening = need("repghost_ros.ros.listening", "source a ROS 2 installation")
    os.nice(_NICE)
    made = enumerate(listening.answered(options.source, options.answers, options.ros_args))
    for number, (read, stamp_ns, results) in made:
        if number % options.every == 0:
            item = Item(None, read, stamp_ns)
            yield item, _frame(item), results


def _of_files(files: list[Path], every: int) -> Iterator[Item]:
    """Iterate over the sources: a picture file is one of its own, as a video is."""
    for found in pictures(files, every=every):
        original = found.path if found.index is None else None
        yield Item(found.index or 0, found.frame, None, original, found.source)
