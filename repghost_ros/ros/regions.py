# SPDX-License-Identifier: Apache-2.0
"""One camera of the node whose images are classified box by box, as a detector found them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode

from repghost_ros.backends.base import Failed
from repghost_ros.engine.decision import Objects
from repghost_ros.engine.matching import Matcher
from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.overlay import draw_boxes
from repghost_ros.engine.pipeline import Pipeline, Stream
from repghost_ros.engine.results import Result
from repghost_ros.errors import FrameError
from repghost_ros.ros import detections
from repghost_ros.ros.camera import Camera, ImageRequest, Input
from repghost_ros.ros.detections import BoxArray, Detections
from repghost_ros.ros.parameters import Parameters, Settings
from repghost_ros.vision.boxes import Box
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import Frame, from_serialized

_UNBOUNDED = 1 << 30  # pixels: the size of an image that nobody has read


@dataclass(frozen=True, eq=False)
class RegionRequest(ImageRequest):
    """A box of an image."""

    box: Box = field(kw_only=True)
    number: int = field(kw_only=True)
    """Its index in the array."""


class SharedFrame:
    """An image that is read once, whichever of its boxes comes first.

    Args:
        image: the message.

    """

    def __init__(self, image: Serialized) -> None:
        self._image = image
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self.unreadable = False
        """True once reading has failed."""

    def get(self) -> Frame:
        """Return the frame, decoded.

        Raises:
            FrameError: there is none in the message.

        """
        with self._lock:
            if self._frame is None:
                try:
                    self._frame = from_serialized(self._image).decoded()
                except Exception:
                    self.unreadable = True
                    raise
            return self._frame


@dataclass(frozen=True, eq=False)
class Regions(Sequence[RegionRequest]):
    """The boxes of an image that are classified."""

    image: Serialized
    array: BoxArray
    frame: SharedFrame
    requests: tuple[RegionRequest, ...]
    refused: Mapping[int, Exception]
    """Why the other boxes that were chosen show nothing, by their index in the array."""

    def __getitem__(self, index: Any) -> Any:
        return self.requests[index]

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[RegionRequest]:
        return iter(self.requests)


class RegionCamera(Camera):
    """Publishes `~/detections` (`~/perception` for the RDK's targets): each array with its classes."""

    def __init__(self, node: LifecycleNode, name: str, settings: Settings) -> None:
        super().__init__(node, name, settings)
        now = settings.parameters
        self._inputs = detections.detections_topics(node, f"{self._prefix}{now.detections}")
        self._answers = {
            topic.message_type: self._advertise(
                topic.message_type,
                "detections" if topic.message_type is detections.Detection2DArray else "perception",
                now.output_qos,
            )
            for topic in self._inputs
        }
        self._changed: Any = None
        if now.hold:
            self._changed = self._advertise(detections.Detection2DArray, "changed", now.output_qos)
        self._objects = Objects()
        self._matching = threading.Lock()
        """Guards the matcher, which the diagnostics let expire."""
        self._matcher: Matcher[Serialized, BoxArray] = Matcher()

    @property
    def answers_topic(self) -> str:
        """Full name of the topic with its answers."""
        return str(self._answers[self._inputs[0].message_type].topic_name)

    @property
    def inputs(self) -> list[Input]:
        """Its topics, the images first."""
        return [*super().inputs, Input(self._inputs, self.submit_boxes)]

    def open(self, pipeline: Pipeline) -> None:
        """Accept images and boxes from now on, through this pipeline."""
        with self._matching:
            self._matcher = Matcher(round(self._settings.parameters.detections_tolerance * 1e9))
        super().open(pipeline)

    @property
    def values(self) -> dict[str, str]:
        """How images and boxes have met since the camera was opened."""
        with self._matching:
            self._matcher.expire(time.monotonic())
            counts = self._matcher.counts
        return {name.replace("_", " "): str(number) for name, number in vars(counts).items()}

    def _submit(self, stream: Stream[Any], image: Serialized, now: Parameters) -> None:
        try:
            stamp = image.header.stamp
        except FrameError:  # it is refused with the same words
            stream.submit([ImageRequest(image, from_serialized, now.view, parameters=now)])
            return
        arrived = time.monotonic()
        with self._matching:
            met = self._matcher.add_image(
                stamp.sec * 10**9 + stamp.nanosec, image, image.size, arrived
            )
        self._classify(met, now)

    def submit_boxes(self, array: BoxArray) -> None:
        """Take a detector's message."""
        with self._matching:
            met = self._matcher.add_boxes(array.stamp, array, array.size, time.monotonic())
        self._classify(met, self._settings.parameters)

    def _classify(self, met: tuple[Serialized, BoxArray] | None, now: Parameters) -> None:
        """Submit the boxes of an image, if both have come."""
        if met is None:
            return
        assert self._stream is not None
        image, array = met
        try:
            boxes = array.boxes
        except FrameError as error:
            read = partial(_refuse, error)
            self._stream.submit([ImageRequest(image, read, now.view, parameters=now)])
            return
        frame, choice = SharedFrame(image), now.box_choice
        requests: list[RegionRequest] = []
        refused: dict[int, Exception] = {}
        for number, roi in choice.rois(boxes, _UNBOUNDED, _UNBOUNDED).items():
            box = boxes[number]
            if isinstance(roi, FrameError):
                refused[number] = roi
            else:
                read = partial(_read_box, frame, box, choice.scale)
                view = replace(now.view, roi=roi)
                requests.append(
                    RegionRequest(
                        *(image, read, view, now.reporting), parameters=now, box=box, number=number
                    )
                )
        self._stream.submit(Regions(image, array, frame, tuple(requests), refused))

    def _deliver(self, requests: Sequence[ImageRequest], outcomes: Sequence[Outcome[Any]]) -> None:
        unpublishable = not isinstance(requests, Regions) or requests.frame.unreadable
        if not unpublishable and not any(isinstance(outcome, Failed) for outcome in outcomes):
            assert isinstance(requests, Regions)
            self._publish(requests, outcomes)
        self._record_all(requests, outcomes)

    def _publish(self, regions: Regions, outcomes: Sequence[Outcome[RegionRequest]]) -> None:
        results: dict[int, Sequence[Result]] = dict.fromkeys(regions.refused, ())
        changed = []
        for outcome in outcomes:
            number = outcome.request.number
            if isinstance(outcome, Answered):
                name, now = outcome.request.box.id, outcome.request.parameters
                decided, is_new = self._objects.decide(
                    name, outcome, regions.array.stamp / 1e9, now.smoothing, now.hold
                )
                results[number] = decided.results
                if is_new:
                    changed.append(number)
            else:
                results[number] = ()
        message = regions.array.answer(results)
        self._answers[type(message)].publish(message)
        if changed and self._changed is not None and isinstance(regions.array, Detections):
            self._changed.publish(regions.array.only(changed))
        self._show(regions.image, regions.frame.get, partial(_draw, regions, results))

    def _record_all(
        self, requests: Sequence[ImageRequest], outcomes: Sequence[Outcome[Any]]
    ) -> None:
        """Log and count the boxes that have no answer, and the answers as one."""
        about = self._about
        if isinstance(requests, Regions):
            for number, error in requests.refused.items():
                self._node.get_logger().warning(
                    f"{about}, box {number}: {error}", throttle_duration_sec=1.0
                )
        answered = [outcome for outcome in outcomes if isinstance(outcome, Answered)]
        for outcome in outcomes:
            if not isinstance(outcome, Answered):
                box = getattr(outcome.request, "number", None)
                self._record(outcome, about if box is None else f"{about}, box {box}")
        if answered:
            self._record(max(answered, key=lambda outcome: outcome.times.inferred), about)


def _refuse(error: FrameError, _: Serialized) -> Frame:
    """Refuse an image for a reason outside of it."""
    raise error


def _read_box(shared: SharedFrame, box: Box, scale: float, _: Serialized) -> Frame:
    """Return a box's frame; the view cuts the box out of it."""
    frame = shared.get()
    box.roi(frame.width, frame.height, scale)  # which says why it lies outside
    return frame


def _draw(regions: Regions, results: Mapping[int, Sequence[Result]], rgb: np.ndarray) -> None:
    """Draw the boxes that were classified, with their best classes."""
    height, width = rgb.shape[:2]
    answers = []
    for request in regions:
        found = results[request.number]
        try:
            roi = request.box.roi(width, height, request.parameters.detections_scale)
        except FrameError:
            continue
        answers.append((roi, found[0] if found else None))
    draw_boxes(rgb, answers)
