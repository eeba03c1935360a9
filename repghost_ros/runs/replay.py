# SPDX-License-Identifier: Apache-2.0
"""A bag's images classified offline: every frame, in order, as fast as the machine can."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from repghost_ros.backends.base import Failed, Refused
from repghost_ros.engine.decision import Smoothing
from repghost_ros.engine.model import Answered, Model
from repghost_ros.engine.results import Reporting, Result
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.bags import Bag, Recorded
from repghost_ros.vision.view import View

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplayOptions:
    """Options for answering the frames of a bag: the node's parameters of the same names."""

    topic: str = ""
    """Of the images; may be empty where the bag has one."""
    view: View = field(default_factory=View)
    reporting: Reporting = field(default_factory=Reporting)
    smoothing: float = 0.0


@dataclass(frozen=True)
class Answer:
    """One frame of the bag and the model's answer."""

    topic: str
    time_ns: int
    """Of the recording, nanoseconds."""
    stamp_ns: int
    """Of the frame's header, nanoseconds; 0 where the driver set none."""
    frame_id: str
    results: tuple[Result, ...] = ()
    """Best first; empty after an error, or where none reached the threshold."""
    error: str = ""
    """Why there is no answer."""
    outcome: str = Answered.kind
    """`answered`, `refused` or `failed`, see the glossary."""

    @property
    def moment_ns(self) -> int:
        """The frame's stamp or, where the driver set none, the time of its recording, nanoseconds."""
        return self.stamp_ns or self.time_ns


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
        topic: of its images; may be empty where there is one.
        model: the opened model; both stay the caller's.
        view: what of each frame the model sees.
        reporting: which classes are reported.
        smoothing: as the node's parameter: weight of earlier frames in a mean of the probabilities.
        workers: frames in flight at a time; default: one per core.
        first: number of the first frame to answer.
        last: number of the frame to end before; None: the end of the bag.

    Raises:
        SourceError: the bag has no such topic, or is truncated or corrupt; what was answered before was
            yielded.

    """
    topic = bag.image_topic(topic).name
    notes: set[str] = set()
    smoother = Smoothing()
    recorded = bag.messages(topic, first=first, last=last)
    for outcome in classify_each(model, recorded, Recorded.frame, view, reporting, workers=workers):
        image = outcome.request.message
        answer = Answer(image.topic, image.time_ns, image.stamp_ns, image.frame_id)
        if not isinstance(outcome, Answered):
            error = str(outcome.error) or type(outcome.error).__name__
            yield replace(answer, error=error, outcome=outcome.kind)
            continue
        if outcome.note and outcome.note not in notes:
            notes.add(outcome.note)
            _log.warning("frames of '%s': %s", topic, outcome.note)
        if smoothing:
            outcome = smoother.update(outcome, answer.moment_ns / 1e9, smoothing)
        yield replace(answer, results=outcome.results)


@dataclass(frozen=True)
class Run:
    """Successive frames with the same best class."""

    class_id: str
    from_ns: int
    to_ns: int
    """Moments of its first and last frame, nanoseconds."""
    frames: int


@dataclass(frozen=True)
class Best:
    """The best class of one frame."""

    moment_ns: int
    class_id: str
    score: float


@dataclass
class Summary:
    """A replay's statistics, counted as answers pass through."""

    frames: int = 0
    refused: int = 0
    failed: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    """Frames by their best class."""
    best: list[Best] = field(default_factory=list)
    """Of every frame that was answered with a class."""

    def count(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Pass the answers on."""
        said = False
        for answer in answers:
            if not (answer.stamp_ns or said):
                said = True
                _log.warning(
                    "frames of '%s' have a header.stamp of zero: the time of recording is used instead",
                    answer.topic,
                )
            self.frames += 1
            self.refused += answer.outcome == Refused.kind
            self.failed += answer.outcome == Failed.kind
            if answer.results:
                result = answer.results[0]
                self.classes[result.class_id] += 1
                self.best.append(Best(answer.moment_ns, result.class_id, result.score))
            yield answer

    def timeline(self) -> list[Run]:
        """Return the runs of one class, in order."""
        runs = []
        for class_id, group in groupby(self.best, key=lambda best: best.class_id):
            moments = [best.moment_ns for best in group]
            runs.append(Run(class_id, moments[0], moments[-1], len(moments)))
        return runs
