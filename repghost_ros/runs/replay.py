# SPDX-License-Identifier: Apache-2.0
"""A bag's images classified offline: every frame, in order, as fast as the machine can."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from repghost_ros.engine.decision import Smoothing
from repghost_ros.engine.model import Model
from repghost_ros.engine.results import Reporting, Result
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.bags import Bag, Recorded
from repghost_ros.vision.view import View

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """One frame of the bag and the model's answer."""

    topic: str
    time_ns: int
    """When the frame was recorded, nanoseconds."""
    stamp_ns: int
    """Of the frame's header, nanoseconds."""
    frame_id: str
    results: tuple[Result, ...] = ()
    """Best first; empty after an error, or where none reached the threshold."""
    error: str = ""


def replay(
    bag: Bag,
    topic: str,
    model: Model,
    view: View = View(),
    reporting: Reporting = Reporting(),
    *,
    smoothing: float = 0.0,
    workers: int | None = None,
    first: int = 0,
    last: int | None = None,
) -> Iterator[Answer]:
    """Answer every frame as the node would with the same parameters; none is dropped.

    Args:
        bag: the opened bag.
        topic: of its images.
        model: the opened model; both stay the caller's.
        view: what of each frame the model sees.
        reporting: which classes are reported.
        smoothing: as the node's parameter: weight of earlier frames in a mean of the probabilities.
        workers: frames in flight at a time; default: one per core.
        first: number of the first frame to answer.
        last: number of the frame to end before; None: the end of the bag.

    Raises:
        SourceError: the bag is truncated or corrupt; what was answered before was yielded.

    """
    noted: set[str] = set()
    smoother = Smoothing()
    recorded = bag.messages(topic, first=first, last=last)
    for job in classify_each(model, recorded, Recorded.frame, view, reporting, workers=workers):
        image = job.message
        note = job.frame.note if job.frame is not None else ""
        if note and note not in noted:
            noted.add(note)
            _log.warning("frames of '%s': %s", image.topic, note)
        if smoothing and job.error is None:
            smoother.update(job, image.stamp_ns / 1e9, smoothing)
        error = "" if job.error is None else str(job.error) or type(job.error).__name__
        yield Answer(image.topic, image.time_ns, image.stamp_ns, image.frame_id, job.results, error)


@dataclass
class Summary:
    """A replay's statistics, counted as answers pass through."""

    frames: int = 0
    refused: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    """Frames by their best class."""
    best: list[tuple[int, str, float]] = field(default_factory=list)
    """Stamp in nanoseconds, best class and its score, of every frame that was answered."""

    def count(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Pass the answers on."""
        for answer in answers:
            self.frames += 1
            if answer.error:
                self.refused += 1
            elif answer.results:
                best = answer.results[0]
                self.classes[best.class_id] += 1
                self.best.append((answer.stamp_ns, best.class_id, best.score))
            yield answer

    def timeline(self) -> list[tuple[str, int, int, int]]:
        """Class, first and last stamp in nanoseconds, and frames, of every run of one class."""
        runs = []
        for class_id, group in groupby(self.best, key=lambda each: each[1]):
            stamps = [stamp for stamp, _, _ in group]
            runs.append((class_id, stamps[0], stamps[-1], len(stamps)))
        return runs
