# SPDX-License-Identifier: Apache-2.0
"""The boxes that a bag holds beside its images, classified offline as the node would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

from repghost_ros.backends.base import Failed, Refused
from repghost_ros.engine.decision import Objects
from repghost_ros.engine.matching import Matcher
from repghost_ros.engine.model import Answered, Model
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import BackendError, FrameError
from repghost_ros.runs.replay import Answer
from repghost_ros.sources.bags import Bag, Recorded
from repghost_ros.sources.detections import message_boxes
from repghost_ros.vision.boxes import Box, BoxChoice
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.view import View

SKIPPED = "skipped"
"""The outcome of a box that was not chosen."""


@dataclass(frozen=True)
class BoxAnswer(Answer):
    """A box of an image and the model's answer."""

    number: int | None = None
    """The position of the box in its array; None where the whole image was refused or failed."""
    object_id: str = ""
    x: float | None = None
    """Of the center, in pixels; None without a box."""
    y: float | None = None
    width: float | None = None
    height: float | None = None
    theta: float | None = None
    detected: str = ""
    """The detector's class."""
    detected_score: float | None = None
    changed: bool = False
    """Whether the node would publish it on `~/changed`."""

    def of(self, number: int, box: Box) -> BoxAnswer:
        """Return the same answer about a box."""
        return replace(
            self,
            number=number,
            object_id=box.id,
            x=box.x,
            y=box.y,
            width=box.width,
            height=box.height,
            theta=box.theta,
            detected=box.class_id,
            detected_score=box.score,
        )


BOX_FIELDS = tuple(entry.name for entry in fields(BoxAnswer))[len(fields(Answer)) :]
"""Of a BoxAnswer, beyond those of an Answer."""


def replay_regions(
    bag: Bag,
    topic: str,
    detections: str,
    model: Model,
    matcher: Matcher[Recorded, Recorded],
    view: View = View(),
    reporting: Reporting = Reporting(),
    choice: BoxChoice = BoxChoice(),
    *,
    smoothing: float = 0.0,
    hold: float = 0.0,
) -> Iterator[BoxAnswer]:
    """Answer the boxes of every image that has some, in the order in which pairs were complete.

    Args:
        bag: the opened bag.
        topic: of its images.
        detections: of its arrays of boxes.
        model: the opened model; both stay the caller's.
        matcher: matches them by their stamps, on the clock of the recording; it has the counts.
        view: how each box is fitted to the model.
        reporting: which classes are reported.
        choice: which boxes are classified, and how much around them.
        smoothing: as the node's parameter, by the object's id.
        hold: likewise.

    Raises:
        SourceError: the bag has no such boxes, or is damaged; what was answered before was yielded.

    """
    reporting.check(model.labels)
    array_type = bag.detections_topic(detections).type
    objects = Objects()
    for image, array in _pairs(bag, topic, detections, matcher):
        about = BoxAnswer(image.topic, image.time_ns, image.stamp_ns, image.frame_id)
        try:
            frame, boxes = image.frame(), _boxes(array, array_type)
            regions = model.classify_regions(frame, boxes, view, reporting, choice)
        except Exception as error:  # as in the pipeline, one bad message refuses its image alone
            ended = Failed if isinstance(error, BackendError) else Refused
            yield replace(about, error=str(error) or type(error).__name__, outcome=ended.kind)
            continue
        for number, region in enumerate(regions):
            answer, outcome = about.of(number, region.box), region.outcome
            if isinstance(outcome, Answered):
                decided, changed = objects.decide(
                    region.box.id, outcome, array.stamp_ns / 1e9, smoothing, hold
                )
                yield replace(answer, results=decided.results, changed=changed)
            else:
                kind = SKIPPED if outcome is None else outcome.kind
                yield replace(answer, error=region.error, outcome=kind)


def crops(
    bag: Bag,
    topic: str,
    detections: str,
    matcher: Matcher[Recorded, Recorded],
    choice: BoxChoice = BoxChoice(),
    every: int = 1,
) -> Iterator[tuple[int, int, Callable[[], Frame]]]:
    """Yield what the boxes of a bag show; arguments and errors are those of `replay_regions`.

    Args:
        bag: see there.
        topic: see there.
        detections: see there.
        matcher: see there.
        choice: see there.
        every: look at every Nth image that has boxes.

    Yields:
        the number of the box among all of the bag's; the stamp of its image in nanoseconds; a function
        that returns its part of the image, or raises why there is none.

    """
    array_type = bag.detections_topic(detections).type
    first = 0
    for index, (image, array) in enumerate(_pairs(bag, topic, detections, matcher)):
        try:
            boxes = _boxes(array, array_type)
            if index % every == 0:
                for number, read in box_readers(image.frame(), boxes, choice):
                    yield first + number, image.stamp_ns, read
        except FrameError as error:
            boxes = []
            yield first, image.stamp_ns, partial(_refuse, error)
        first += len(boxes) or 1


def box_readers(
    frame: Frame, boxes: Sequence[Box], choice: BoxChoice
) -> Iterator[tuple[int, Callable[[], Frame]]]:
    """Yield the chosen boxes by their number, with what returns their part or raises why there is none.

    Raises:
        FrameError: the frame cannot be decoded.

    """
    frame = frame.decoded()
    for number, roi in choice.rois(boxes, frame.width, frame.height).items():
        if isinstance(roi, FrameError):
            yield number, partial(_refuse, roi)
        else:
            yield number, partial(frame.crop, *roi)


def _refuse(error: FrameError) -> Frame:
    raise error


def _boxes(array: Recorded, array_type: str) -> list[Box]:
    if array.message is None:
        raise FrameError(f"its array of boxes cannot be read: {array.error}")
    return message_boxes(array.message, array_type)


def _pairs(
    bag: Bag, topic: str, detections: str, matcher: Matcher[Recorded, Recorded]
) -> Iterator[tuple[Recorded, Recorded]]:
    try:
        for recorded in bag.messages(topic, detections):
            add = matcher.add_image if recorded.topic == topic else matcher.add_boxes
            size = len(getattr(recorded.message, "data", ()))
            met = add(recorded.stamp_ns, recorded, size, recorded.time_ns / 1e9)
            if met is not None:
                yield met
    finally:
        matcher.clear()
