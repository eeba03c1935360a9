"""One camera of the node: its way from image topic through the pipeline to its answers' topics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.errors import FrameError
from repghost_ros.results import named, top_k
from repghost_ros.ros import messages
from repghost_ros.ros.parameters import Parameters
from repghost_ros.stream.monitor import Monitor, Report
from repghost_ros.stream.pipeline import Answer, Pipeline, Stream
from repghost_ros.vision.frame import Frame, from_compressed, from_image
from repghost_ros.vision.nv12 import to_nv12
from repghost_ros.vision.overlay import draw_overlay, picture


class Channel:
    """Publishes `~/classification` and `~/overlay` of the images on `image`.

    Args:
        node: which publishes.
        camera: prefix of the topics, or empty for the only camera.
        parameters: called for the node's current parameters.

    """

    def __init__(
        self, node: LifecycleNode, camera: str, parameters: Callable[[], Parameters]
    ) -> None:
        self.camera = camera
        self._monitor: Monitor | None = None
        self._node = node
        self._parameters = parameters
        self._stream: Stream | None = None
        self._due = 0.0
        prefix = f"{camera}/" if camera else ""
        compressed = parameters().image_transport == "compressed"
        topic = node.resolve_topic_name(f"{prefix}image")
        # As image_transport does it, so that remapping `image` serves both.
        self.topic = f"{topic}/compressed" if compressed else topic
        self.message_type = CompressedImage if compressed else Image
        self._classifications = node.create_lifecycle_publisher(
            messages.Classification, f"~/{prefix}classification", 10
        )
        self._overlay = node.create_lifecycle_publisher(Image, f"~/{prefix}overlay", 1)

    def open(self, pipeline: Pipeline) -> None:
        """Let frames in, from now on through this pipeline."""
        self._stream = pipeline.open_stream(
            self._convert, self._deliver, self._parameters().queue_depth
        )
        self._monitor = Monitor(self._stream)

    def submit(self, message: Image | CompressedImage) -> None:
        """Take a frame, unless it comes sooner than `max_rate` allows."""
        assert self._stream is not None
        rate = self._parameters().max_rate
        if rate:
            now = time.monotonic()
            if now < self._due:
                self._stream.skip()
                return
            # Late by up to half a period is made up for: a camera's jitter must not lower the rate.
            self._due = max(self._due, now - 0.5 / rate) + 1 / rate
        self._stream.submit(message)

    @property
    def answers(self) -> int:
        """Frames that were answered since the channel was opened."""
        return self._stream.answered if self._stream is not None else 0

    @property
    def failures(self) -> int:
        """Frames that the backend failed on since the channel was opened."""
        return self._stream.failed if self._stream is not None else 0

    def report(self) -> Report | None:
        """What happened since the last report, or None before the channel was opened."""
        return self._monitor.report() if self._monitor is not None else None

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in (self._classifications, self._overlay):
            self._node.destroy_lifecycle_publisher(publisher)

    def _frame(self, message: Image | CompressedImage) -> Frame:
        frame = from_image(message) if isinstance(message, Image) else from_compressed(message)
        roi = self._parameters().roi
        return frame.crop(*roi) if any(roi) else frame

    def _convert(self, answer: Answer, out: np.ndarray) -> None:
        now = self._parameters()
        to_nv12(
            self._frame(answer.message),
            out,
            resize=now.resize,
            color_range=answer.backend.color_range,
            source_color_range=now.source_color_range,
        )

    def _deliver(self, answer: Answer) -> None:
        if answer.logits is not None:
            try:
                self._publish(answer.message, answer.logits, answer.backend.labels)
            except ValueError as error:  # the model answered nonsense
                answer.error = error
        if answer.error is not None:
            self._node.get_logger().error(
                f"frame of '{self.topic}' refused: {answer.error}", throttle_duration_sec=1.0
            )
        assert self._monitor is not None
        self._monitor.record(answer)

    def _publish(self, message: Any, logits: np.ndarray, labels: tuple[str, ...]) -> None:
        now = self._parameters()
        results = named(top_k(logits, now.top_k, now.score_threshold), labels, now.class_id)
        self._classifications.publish(messages.classification(message.header, results))
        if self._overlay.get_subscription_count():
            try:
                rgb = picture(self._frame(message), now.source_color_range)
            except FrameError:  # roi was changed since the frame was classified
                return
            draw_overlay(rgb, results)
            self._overlay.publish(messages.image(message.header, rgb))
