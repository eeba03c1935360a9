# SPDX-License-Identifier: Apache-2.0
"""A detector's arrays of boxes: vision_msgs/Detection2DArray, ai_msgs/PerceptionTargets of the RDK."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from vision_msgs.msg import ObjectHypothesis

from repghost_ros.engine.results import Result
from repghost_ros.errors import DependencyError, FrameError
from repghost_ros.ros import perception
from repghost_ros.ros.topics import Topic
from repghost_ros.sources.detections import detection_box, target_box
from repghost_ros.sources.types import DETECTIONS, TARGETS
from repghost_ros.vision.boxes import Box
from repghost_ros.vision.cdr import Memory

try:
    from vision_msgs.msg import Detection2DArray, ObjectHypothesisWithPose
except ImportError:  # an installation of the classification messages alone
    Detection2DArray = ObjectHypothesisWithPose = None

_STAMP_END = 12  # bytes


class BoxArray(ABC):
    """One message of a detector, deserialized where its boxes are wanted.

    Args:
        raw: the message in CDR.
        message_type: its type.

    """

    def __init__(self, raw: bytes, message_type: Any) -> None:
        self._raw = raw
        self._type = message_type

    @property
    def size(self) -> int:
        """How many bytes the serialized message has."""
        return len(self._raw)

    @property
    def stamp(self) -> int:
        """The stamp of its image in nanoseconds; 0 if the message is too short for one."""
        if self.size < _STAMP_END:
            return 0
        # The header comes first, after four bytes of which the second tells the byte order.
        order = "<" if self._raw[1] & 1 else ">"
        sec, nanosec = struct.unpack_from(f"{order}iI", self._raw, 4)
        return int(sec) * 10**9 + int(nanosec)

    @cached_property
    def message(self) -> Any:
        """The message; `answer` writes the results into it.

        Raises:
            FrameError: the bytes are not such a message.

        """
        try:
            return deserialize_message(self._raw, self._type)
        except Exception as error:  # whatever the middleware raises
            raise FrameError(f"its array of boxes cannot be read: {error}") from error

    @cached_property
    @abstractmethod
    def boxes(self) -> Sequence[Box]:
        """Every box, in the message's order."""

    @abstractmethod
    def answer(self, results: Mapping[int, Sequence[Result]]) -> Any:
        """Return the message with these results.

        Args:
            results: of the classified boxes, by their index in `boxes`; empty for a box that shows
                nothing. Other boxes stay as they are.

        """

    @abstractmethod
    def only(self, numbers: Collection[int]) -> Any:
        """Return a message with some of the boxes, as `answer` left them.

        Args:
            numbers: their places in `boxes`.

        """


class Detections(BoxArray):
    """A vision_msgs/Detection2DArray: each detection gets this model's hypotheses."""

    @cached_property
    def boxes(self) -> Sequence[Box]:
        """Every detection's box, with the class of its best hypothesis."""
        return [detection_box(detection) for detection in self.message.detections]

    def answer(self, results: Mapping[int, Sequence[Result]]) -> Any:
        """Replace the hypotheses of the classified detections; their poses stay."""
        for number, found in results.items():
            detection = self.message.detections[number]
            pose = {"pose": detection.results[0].pose} if detection.results else {}
            detection.results = [
                ObjectHypothesisWithPose(
                    hypothesis=ObjectHypothesis(class_id=result.class_id, score=result.score),
                    **pose,
                )
                for result in found
            ]
        return self.message

    def only(self, numbers: Collection[int]) -> Any:
        """Return some of the detections under the same header."""
        detections = [self.message.detections[number] for number in sorted(numbers)]
        return type(self.message)(header=self.message.header, detections=detections)


class Targets(BoxArray):
    """An ai_msgs/PerceptionTargets: each target gets attributes of this model's classes."""

    @cached_property
    def boxes(self) -> Sequence[Box]:
        """Every target's first region, which is the whole object; an empty box where it has none."""
        return [target_box(target) for target in self.message.targets]

    def answer(self, results: Mapping[int, Sequence[Result]]) -> Any:
        """Add an attribute for each reported class."""
        for number, found in results.items():
            target = self.message.targets[number]
            target.attributes = [*target.attributes, *map(perception.attribute, found)]
        return self.message

    def only(self, numbers: Collection[int]) -> Any:
        """Return some of the targets under the same header."""
        targets = [self.message.targets[number] for number in sorted(numbers)]
        return type(self.message)(header=self.message.header, fps=-1, targets=targets)


@dataclass(frozen=True)
class DetectionsTopic(Topic):
    """A topic with arrays of boxes."""

    noun: ClassVar[str] = "array of boxes"
    accepted: ClassVar[tuple[str, ...]] = (DETECTIONS, TARGETS)

    def read(self, raw: bytes | memoryview | Memory) -> BoxArray:
        """Return an array from the bytes that DDS delivered."""
        data = bytes(raw if isinstance(raw, bytes | memoryview) else raw.view())
        wrap = Detections if self.message_type is Detection2DArray else Targets
        return wrap(data, self.message_type)


def detections_topics(node: Node, detections: str) -> list[DetectionsTopic]:
    """Return the types that a detector's boxes may have, the likelier first.

    Args:
        node: its remap rules apply.
        detections: the topic before remapping.

    Raises:
        DependencyError: no package with such messages is installed.

    """
    topic = node.resolve_topic_name(detections)
    found = [DetectionsTopic(topic, Detection2DArray)] if Detection2DArray is not None else []
    try:
        found.append(DetectionsTopic(topic, perception.message_type()))
    except DependencyError:
        if not found:
            raise
    return found
