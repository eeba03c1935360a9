# SPDX-License-Identifier: Apache-2.0
"""`repghost replay --detections`: the boxes recorded in a bag instead of whole images."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import add_boxes, box_choice, matcher, model_from, positive_float
from repghost_ros.cli.report import Table
from repghost_ros.engine.matching import MatchCounts
from repghost_ros.errors import SourceError, UsageError
from repghost_ros.runs.answers import open_results
from repghost_ros.runs.regions import replay_regions
from repghost_ros.runs.replay import ReplayOptions
from repghost_ros.sources.bags import Bag
from repghost_ros.zoo.onnx_graph import model_sha256

_SHOWN = 5  # errors logged
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BoxesReplayed:
    """A bag's boxes, and how its images and arrays have met."""

    about: dict[str, Any]
    counts: MatchCounts
    outcomes: Counter[str]
    """Boxes by outcome; an image that was refused or failed counts as one."""
    classes: Counter[str]
    """Boxes by their best class."""
    error: str
    """Why the bag broke off; empty if it did not."""

    @property
    def failed(self) -> bool:
        """Whether the bag was cut off, or boxes have no answer though they were chosen."""
        return bool(self.error or self.outcomes["refused"] or self.outcomes["failed"])

    def text(self) -> Iterator[str | Table]:
        """Yield the counts and the best classes."""
        counted = {name: number for name, number in vars(self.counts).items() if number}
        yield ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counted.items())
        ended = ", ".join(f"{number} {name}" for name, number in self.outcomes.items())
        yield f"{self.outcomes.total()} boxes: {ended}"
        yield Table(("best class", "boxes"), self.classes.most_common())

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and one dict per best class."""
        classes = self.classes.most_common()
        return {
            **self.about,
            "matching": vars(self.counts),
            "boxes": dict(self.outcomes),
            "results": [{"class_id": name, "boxes": number} for name, number in classes],
            **({"error": self.error} if self.error else {}),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options about boxes."""
    add_boxes(parser)
    parser.add_argument(
        "--hold",
        type=positive_float,
        default=0.0,
        metavar="SECONDS",
        help="with --detections: mark an object whose new class has lasted so long",
    )


def run(options: argparse.Namespace, wanted: ReplayOptions) -> BoxesReplayed:
    """Answer every box of one bag; where it breaks off, everything before the cut counts.

    Raises:
        UsageError: an option is of whole images.

    """
    for name in ("compare", "plot", "report", "list"):
        if getattr(options, name):
            raise UsageError(f"--{name} is of whole images: leave it out beside --detections")
    if len(options.bags) > 1:
        raise UsageError("--detections takes one bag")
    if any(wanted.view.roi):
        raise UsageError("--roi is of whole images: leave it out beside --detections")
    choice, matching = box_choice(options), matcher(options)
    outcomes: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    broken = ""
    path, out = Path(options.bags[0]), options.out
    with ExitStack() as opened:
        bag = opened.enter_context(Bag(path))
        topic = bag.image_topic(wanted.topic).name
        bag.detections_topic(options.detections)
        model = opened.enter_context(model_from(options))  # last, for it may be downloaded
        about = {
            "bag": str(path),
            "topic": topic,
            "detections": options.detections,
            "model": str(model.path),
            "model_sha256": model_sha256(model.path),
            "backend": model.runtime,
            "resize": wanted.view.policy(model.resize),
        }
        written = open_results(out, top_k=options.top_k, bag=str(path), boxes=True)
        with written if out else nullcontext(lambda _: None) as write:
            try:
                for answer in replay_regions(
                    *(bag, topic, options.detections, model, matching),
                    *(wanted.view, wanted.reporting, choice),
                    smoothing=wanted.smoothing,
                    hold=options.hold,
                ):
                    write(answer)
                    outcomes[answer.outcome] += 1
                    classes.update(result.class_id for result in answer.results[:1])
                    if answer.error and outcomes["refused"] + outcomes["failed"] <= _SHOWN:
                        box = "" if answer.number is None else f", box {answer.number}"
                        seconds = answer.moment_ns / 1e9
                        _log.error("frame at %.3f s%s: %s", seconds, box, answer.error)
            except SourceError as error:
                broken = str(error)
                _log.error(broken)
    return BoxesReplayed(about, matching.counts, outcomes, classes, broken)
