# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: from its image topic through the pipeline to its output topics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.logging import LoggingSeverity
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.engine.decision import Change, Smoothing
from repghost_ros.engine.job import Counts, Job, Outcome
from repghost_ros.engine.monitor import Monitor, Report
from repghost_ros.engine.overlay import draw_overlay, picture
from repghost_ros.engine.pipeline import Pipeline, Stream
from repghost_ros.native import Semaphore
from repghost_ros.ros import messages, perception, rcl
from repghost_ros.ros.intake import Subscription
from repghost_ros.ros.parameters import Parameters
from repghost_ros.ros.topics import sources
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import Frame, from_compressed, from_image

_COUNT_PERIOD = 0.1  # seconds until a new viewer of the overlay, or a new log level, is seen


class Camera:
    """Publishes `~/classification` and `~/overlay` for the images on `image`.

    Args:
        node: which publishes.
        name: prefix of the topics, or empty for the only camera.
        parameters: called for the node's current parameters.
        enabled: called, once a frame, for whether frames are wanted; others are skipped.

    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        parameters: Callable[[], Parameters],
        enabled: Callable[[], bool],
    ) -> None:
        self.name = name
        self._monitor = Monitor()
        self._node = node
        self._parameters = parameters
        self._enabled = enabled
        self._stream: Stream[Serialized] | None = None
        self._due = 0.0
        self._prefix = f"{name}/" if name else ""
        self._note = ""
        self._watchers = (0, 0)
        """How many watch the overlay, raw and compressed."""
        self._debugs = False
        """Whether the log wants each frame."""
        self._counted = 0.0
        now = parameters()
        self.sources = sources(node, f"{self._prefix}image", now.image_transport)
        """Where its images may come from, the likeliest first."""
        self.subscription: Subscription | None = None
        """To its images, while the node is active."""
        self._publishers: list[Any] = []
        self._classifications = self._advertise(
            messages.Classification, "classification", now.output_qos
        )
        self._best = rcl.BestPublisher(self._classifications)
        self._overlay = self._advertise(Image, "overlay", QoSProfile(depth=1))
        self._packed_overlay = self._advertise(
            CompressedImage, "overlay/compressed", QoSProfile(depth=1)
        )
        self._smoothing = Smoothing()
        self._change = Change()
        self._changed: Any = None
        if now.hold:
            self._changed = self._advertise(messages.Classification, "changed", now.output_qos)
        self._perception: Any = None
        if now.perception:
            message_type = perception.message_type()
            self._perception = self._advertise(message_type, "perception", now.output_qos)

    def _advertise(self, message_type: Any, name: str, qos: QoSProfile) -> Any:
        publisher = self._node.create_lifecycle_publisher(
            message_type,
            f"~/{self._prefix}{name}",
            qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._publishers.append(publisher)
        return publisher

    @property
    def answers_topic(self) -> str:
        """Full name of the topic with its answers."""
        return str(self._classifications.topic_name)

    def open(self, pipeline: Pipeline) -> None:
        """Accept frames from now on, through this pipeline."""
        self._monitor = Monitor()
        self._stream = pipeline.open_stream(
            self._read, self._deliver, self._parameters().queue_depth
        )

    def submit(self, message: Serialized) -> Semaphore | None:
        """Take a frame, unless none is wanted or it arrives sooner than `max_rate` allows.

        Returns:
            what the caller releases to have the frame classified, if anything.

        """
        assert self._stream is not None
        now = self._parameters()
        if not self._enabled() or (now.max_rate and self._is_early(now.max_rate)):
            self._stream.skip()
            return None
        return self._stream.submit(message, now.view, now.reporting)

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
        """Whether somebody subscribes to what it publishes."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    @property
    def paused(self) -> str:
        """Why no image is classified, empty while they are."""
        if not self._enabled():
            return "disabled by ~/enable"
        is_paused = self.subscription is not None and self.subscription.paused
        return "lazy: nobody listens" if is_paused else ""

    def report(self) -> Report:
        """The statistics since the last report."""
        return self._monitor.report(self.counts, paused=bool(self.paused))

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _deliver(self, job: Job[Any]) -> Outcome:
        assert job.outcome is not None
        if job.outcome is Outcome.ANSWERED:
            self._publish(job)
        else:
            self._node.get_logger().error(
                f"frame of '{self.sources[0].topic}' {job.outcome.value}: {job.error}",
                throttle_duration_sec=1.0,
            )
        # Without a frame, the image was copied as it is: nothing is to be noted.
        note = job.frame.note if job.frame is not None else ""
        if job.outcome is not Outcome.REFUSED and note != self._note:
            self._note = note
            if self._note:
                self._node.get_logger().warning(
                    f"frame of '{self.sources[0].topic}': {self._note}", throttle_duration_sec=1.0
                )
        self._monitor.record(job)
        if self._debugs:
            self._node.get_logger().debug(
                f"frame of '{self.sources[0].topic}': {_summary(job)}", throttle_duration_sec=1.0
            )
        return job.outcome

    def _publish(self, job: Job[Any]) -> None:
        now = self._parameters()
        if now.smoothing:
            self._smoothing.update(job, _stamp(job), now.smoothing)
        if not self._best.publish(job):
            answer = messages.serialized_classification(job.message, job.results)
            rcl.publish(self._classifications, answer)
        if self._changed is not None:
            top = job.results[0].class_id if job.results else None
            if self._change.update(top, _stamp(job), now.hold):
                answer = messages.serialized_classification(job.message, job.results)
                rcl.publish(self._changed, answer)
        if self._perception is not None:
            header = messages.header(job.message)
            clock, model = self._node.get_clock().now(), f"repghost_{now.model}"
            self._perception.publish(perception.targets(job, header, model, clock))
        self._look()
        raw, packed = self._watchers
        if raw or packed:
            # The compiled helper made none: it copies pixels from the message into the model's input.
            frame = job.frame or job.view.crop(self._read(job.message))
            rgb = picture(frame, job.view.source_color_range)
            draw_overlay(rgb, job.results)
            header = messages.header(job.message)
            if raw:
                self._overlay.publish(messages.image(header, rgb))
            if packed:
                self._packed_overlay.publish(messages.compressed_image(header, rgb))

    def _look(self) -> None:
        """See, now and then, who watches the overlay and whether the log wants each frame."""
        now = time.monotonic()
        if now - self._counted > _COUNT_PERIOD:
            self._counted = now
            # Asked here, for rclpy looks for its caller before it looks at the level.
            self._debugs = self._node.get_logger().is_enabled_for(LoggingSeverity.DEBUG)
            self._watchers = (
                self._overlay.get_subscription_count(),
                self._packed_overlay.get_subscription_count(),
            )

    def _read(self, received: Serialized) -> Frame:
        message = received.message
        frame = from_compressed(message) if received.compressed else from_image(message)
        # The overlay needs the whole picture: decode it once.
        self._look()
        return frame.decoded() if any(self._watchers) else frame


def _stamp(job: Job[Serialized]) -> float:
    """Of its image, in seconds."""
    stamp = job.message.header.stamp
    return stamp.sec + stamp.nanosec / 1e9


def _summary(job: Job[Any]) -> str:
    """What came, what became of it, and how long each step took."""
    assert job.outcome is not None
    came: Any = job.frame
    if came is None and job.outcome is Outcome.ANSWERED:
        came = job.message.message
    came = "unread" if came is None else f"{came.width}x{came.height} {came.encoding}"
    best = "".join(f" {result.class_id} {result.score:.1%}" for result in job.results[:1])
    steps = {
        "waited": (job.received, job.started),
        "converted": (job.started, job.converted),
        "inferred": (job.converted, job.inferred),
    }
    times = ", ".join(
        f"{name} {(end - begin) * 1e3:.1f} ms"
        for name, (begin, end) in steps.items()
        if begin is not None and end is not None
    )
    return f"{came}, {job.outcome.value}{best}; {times}"
