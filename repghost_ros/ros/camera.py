# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: from its image topic through the pipeline to its output topics."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.logging import LoggingSeverity
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.engine.decision import ChangeDetector, Smoothing
from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.monitor import CameraReport, Monitor
from repghost_ros.engine.overlay import draw_overlay, picture
from repghost_ros.engine.pipeline import Pipeline, Stream
from repghost_ros.engine.request import Counts, Request
from repghost_ros.ros import messages, perception, rcl
from repghost_ros.ros.compat import QOS_OVERRIDES
from repghost_ros.ros.intake import Subscription
from repghost_ros.ros.parameters import Parameters, Settings
from repghost_ros.ros.topics import Topic, candidate_topics
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import Frame, from_serialized

_COUNT_PERIOD = 0.1  # seconds until a new viewer of the overlay, or a new log level, is seen


@dataclass(frozen=True, eq=False)
class ImageRequest(Request[Serialized]):
    """An image, and the node's parameters at its arrival."""

    parameters: Parameters = field(kw_only=True)


class Input(NamedTuple):
    """A topic that a camera subscribes to."""

    candidates: Sequence[Topic]
    """Where its messages may come from, the likeliest first."""
    callback: Callable[[Any], None]


class Camera(ABC):
    """Takes the images on `image` through a pipeline; publishes `~/overlay` while somebody watches.

    Args:
        node: the publisher.
        name: prefix of the topics, or empty for the only camera.
        settings: the node's; read once a frame.

    """

    def __init__(self, node: LifecycleNode, name: str, settings: Settings) -> None:
        self.name = name
        self._monitor = Monitor()
        self._node = node
        self._settings = settings
        self._stream: Stream[Any] | None = None
        self._due = 0.0
        self._prefix = f"{name}/" if name else ""
        self._note = ""
        self._watchers = (0, 0)
        """Subscribers of the overlay, raw and compressed."""
        self._debugs = False
        """True if the log shows every frame."""
        self._counted = 0.0
        now = settings.parameters
        self.sources = candidate_topics(node, f"{self._prefix}image", now.image_transport)
        """The topics that its images may come from, the likeliest first."""
        self._about = f"frame of '{self.sources[0].topic}'"
        """What the log calls an image."""
        self.subscriptions: list[Subscription] = []
        """The subscriptions to its inputs, while the node is active."""
        self._publishers: list[Any] = []
        self._overlay = self._advertise(Image, "overlay", QoSProfile(depth=1))
        self._packed_overlay = self._advertise(
            CompressedImage, "overlay/compressed", QoSProfile(depth=1)
        )

    def _advertise(self, message_type: Any, name: str, qos: QoSProfile) -> Any:
        publisher = self._node.create_lifecycle_publisher(
            message_type,
            f"~/{self._prefix}{name}",
            qos,
            qos_overriding_options=QOS_OVERRIDES,
        )
        self._publishers.append(publisher)
        return publisher

    @property
    @abstractmethod
    def answers_topic(self) -> str:
        """Full name of the topic with its answers."""

    @property
    def inputs(self) -> list[Input]:
        """The topics that it subscribes to, the images first."""
        return [Input(self.sources, self.submit)]

    def open(self, pipeline: Pipeline) -> None:
        """Accept frames from now on, through this pipeline."""
        self._monitor = Monitor()
        self._stream = pipeline.open_stream(self._deliver, self._settings.parameters.queue_depth)

    def submit(self, message: Serialized) -> None:
        """Take an image, unless none is wanted or it arrives sooner than `max_rate` allows."""
        assert self._stream is not None
        now = self._settings.parameters
        if not self._settings.enabled or (now.max_rate and self._is_early(now.max_rate)):
            self._stream.skip()
        else:
            self._submit(self._stream, message, now)

    @abstractmethod
    def _submit(self, stream: Stream[Any], image: Serialized, now: Parameters) -> None:
        """Let a wanted image be classified, with the node's current parameters."""

    @abstractmethod
    def _deliver(self, requests: Sequence[Any], outcomes: Sequence[Outcome[Any]]) -> None:
        """Publish the answers to an image."""

    def _is_early(self, rate: float) -> bool:
        now = time.monotonic()
        if now < self._due:
            return True
        # Being late by up to half a period is compensated: jitter must not lower the rate.
        self._due = max(self._due, now - 0.5 / rate) + 1 / rate
        return False

    @property
    def counts(self) -> Counts:
        """Frames since the camera was opened."""
        return self._stream.counts if self._stream is not None else Counts()

    @property
    def has_listeners(self) -> bool:
        """True if somebody subscribes to one of its topics."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    @property
    def paused(self) -> str:
        """The reason that images are not classified, empty while they are."""
        if not self._settings.enabled:
            return "disabled by ~/enable"
        is_paused = any(subscription.paused for subscription in self.subscriptions)
        return "lazy: nobody listens" if is_paused else ""

    @property
    def values(self) -> dict[str, str]:
        """What /diagnostics tells of it beside the statistics."""
        return {}

    def report(self) -> CameraReport:
        """Return the statistics since the last report."""
        return self._monitor.report(self.counts, paused=bool(self.paused))

    def end_period(self) -> None:
        """Let the next report begin now."""
        self._monitor.end_period(self.counts, paused=bool(self.paused))

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _record(self, outcome: Outcome[Any], about: str) -> None:
        """Log how a request ended, and count it in the statistics.

        Args:
            outcome: after it was published.
            about: the request in words.

        """
        if not isinstance(outcome, Answered):
            self._node.get_logger().error(
                f"{about} {outcome.kind}: {outcome.error}", throttle_duration_sec=1.0
            )
        elif outcome.note != self._note:
            self._note = outcome.note
            if self._note:
                self._node.get_logger().warning(f"{about}: {self._note}", throttle_duration_sec=1.0)
        self._monitor.record(outcome)
        if self._debugs:
            self._node.get_logger().debug(
                f"{about}: {_summary(outcome)}", throttle_duration_sec=1.0
            )

    def _show(
        self, image: Serialized, frame: Callable[[], Frame], draw: Callable[[np.ndarray], None]
    ) -> None:
        """Publish the overlay, if somebody watches.

        Args:
            image: the message; the overlay gets its header.
            frame: returns what to show of it.
            draw: draws the answers onto uint8 (height, width, 3) RGB.

        """
        now = time.monotonic()
        if now - self._counted > _COUNT_PERIOD:
            self._counted = now
            self._look()
        raw, packed = self._watchers
        if not (raw or packed):
            return
        rgb = picture(frame(), self._settings.parameters.source_color_range)
        draw(rgb)
        header = messages.header(image)
        if raw:
            self._overlay.publish(messages.image(header, rgb))
        if packed:
            self._packed_overlay.publish(messages.compressed_image(header, rgb))

    def _look(self) -> None:
        """See who watches the overlay and whether the log wants each frame."""
        # Asked here, for rclpy looks for its caller before it looks at the level.
        self._debugs = self._node.get_logger().is_enabled_for(LoggingSeverity.DEBUG)
        self._watchers = (
            self._overlay.get_subscription_count(),
            self._packed_overlay.get_subscription_count(),
        )


class ImageCamera(Camera):
    """Publishes `~/classification`, for each image as a whole."""

    def __init__(self, node: LifecycleNode, name: str, settings: Settings) -> None:
        super().__init__(node, name, settings)
        now = settings.parameters
        self._classifications = self._advertise(
            messages.Classification, "classification", now.output_qos
        )
        self._best = rcl.BestPublisher(self._classifications)
        self._smoothing = Smoothing()
        self._change = ChangeDetector()
        self._said_unstamped = False
        self._changed: Any = None
        if now.hold:
            self._changed = self._advertise(messages.Classification, "changed", now.output_qos)
        self._perception: Any = None
        if now.perception:
            message_type = perception.message_type()
            self._perception = self._advertise(message_type, "perception", now.output_qos)

    @property
    def answers_topic(self) -> str:
        """Full name of the topic with its answers."""
        return str(self._classifications.topic_name)

    def _submit(self, stream: Stream[Any], image: Serialized, now: Parameters) -> None:
        stream.submit(
            [ImageRequest(image, from_serialized, now.view, now.reporting, parameters=now)]
        )

    def _deliver(self, _: Sequence[Any], outcomes: Sequence[Outcome[ImageRequest]]) -> None:
        (outcome,) = outcomes
        if isinstance(outcome, Answered):
            self._publish(outcome)
        self._record(outcome, self._about)

    def _publish(self, answered: Answered[ImageRequest]) -> None:
        request = answered.request
        image, parameters = request.message, request.parameters
        if parameters.smoothing:
            moment = self._moment(request)
            answered = self._smoothing.update(answered, moment, parameters.smoothing)
        if not self._best.publish(answered):
            answer = messages.serialized_classification(image, answered.results)
            rcl.publish(self._classifications, answer)
        if self._changed is not None:
            top = answered.results[0].class_id if answered.results else None
            if self._change.update(top, self._moment(request), parameters.hold):
                answer = messages.serialized_classification(image, answered.results)
                rcl.publish(self._changed, answer)
        if self._perception is not None:
            now = self._node.get_clock().now()
            self._perception.publish(perception.targets(answered, messages.header(image), now))
        self._show(image, lambda: answered.frame, lambda rgb: draw_overlay(rgb, answered.results))

    def _moment(self, request: ImageRequest) -> float:
        """Return an image's stamp or, where the driver sets none, its arrival, in seconds."""
        stamp = request.message.header.stamp
        if stamp.sec or stamp.nanosec:
            return stamp.sec + stamp.nanosec / 1e9
        if not self._said_unstamped:
            self._said_unstamped = True
            self._node.get_logger().warning(
                f"images on '{self.sources[0].topic}' have a header.stamp of zero: smoothing and hold "
                "use the time of their arrival"
            )
        return request.received


def _summary(outcome: Outcome[ImageRequest]) -> str:
    """Return what came, what became of it, and how long its steps took."""
    if not isinstance(outcome, Answered):
        return f"{outcome.kind}: {outcome.error}"
    frame, times, received = outcome.frame, outcome.times, outcome.request.received
    best = "".join(f" {result.class_id} {result.score:.1%}" for result in outcome.results[:1])
    waited, converted, inferred = (
        f"{(end - begin) * 1e3:.1f} ms"
        for begin, end in pairwise((received, times.started, times.converted, times.inferred))
    )
    return (
        f"{frame.width}x{frame.height} {frame.encoding}, {outcome.kind}{best}; waited {waited}, "
        f"converted {converted}, inferred {inferred}"
    )
