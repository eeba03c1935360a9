# SPDX-License-Identifier: Apache-2.0
"""Publishes one picture of each camera at a fixed rate, and counts and times the answers."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from bench.graph import SMALL, Images
from bench.participant import Participant
from repghost_ros.ros import messages


@dataclass
class Run:
    """The answers of one run."""

    seconds: float
    sent: int
    latencies: list[float] = field(default_factory=list)
    """Seconds from publication to the answer's arrival, of the answers of the run."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return (
            float(np.percentile(self.latencies, percent)) * 1e3 if self.latencies else float("nan")
        )


def message(images: Images) -> Any:
    """Return the message of such an image."""
    step, content = images.first()
    data = array("B", content)
    if images.encoding == "jpeg":
        return CompressedImage(format="jpeg", data=data)
    return Image(
        **{"encoding": images.encoding, "step": step, "data": data},
        **{"width": images.width, "height": images.height},
    )


class Camera(Participant):
    """A participant that sends images and takes the answers of one node.

    Args:
        node_name: the node's.
        qos: to publish with.
        cameras: what each of the node's cameras sends; one without a name by default.

    """

    def __init__(
        self,
        node_name: str,
        qos: QoSProfile = qos_profile_sensor_data,
        cameras: Mapping[str, Images] = MappingProxyType({"": SMALL}),
    ) -> None:
        super().__init__("bench_camera")
        self.published = 0
        self.answered = 0
        self.longest_silence = 0.0
        """Seconds between two answers."""
        self._last_answer = float("inf")
        self._publishers = []
        for name, images in cameras.items():
            prefix, image = f"{name}/" if name else "", message(images)
            topic = f"{prefix}image" + ("/compressed" if images.encoding == "jpeg" else "")
            self._publishers.append((self._node.create_publisher(type(image), topic, qos), image))
            self._node.create_subscription(
                messages.Classification,
                f"/{node_name}/{prefix}classification",
                self._on_answer,
                QoSProfile(depth=1000),
            )
        self._sent: dict[int, float] = {}
        self._answers: dict[int, float] = {}
        self.start()

    def _on_answer(self, message: Any) -> None:
        now = time.monotonic()
        self.answered += 1
        self._answers[message.header.stamp.sec] = now
        self._note_silence(now)
        self._last_answer = now

    def _note_silence(self, now: float) -> None:
        self.longest_silence = max(self.longest_silence, now - self._last_answer)

    def silence(self) -> float:
        """Return the longest time in seconds without an answer so far, the latest included."""
        self._note_silence(time.monotonic())
        return self.longest_silence

    def _publish(self) -> None:
        """Send an image from each camera, under numbers of their own."""
        for publisher, image in self._publishers:
            self.published += 1
            image.header.stamp.sec = self.published
            self._sent[self.published] = time.monotonic()
            publisher.publish(image)

    def wait_for_node(self) -> None:
        """Send now and then until an answer comes."""
        while not (self._answers and all(p.get_subscription_count() for p, _ in self._publishers)):
            self._publish()
            time.sleep(0.05)

    def send_broken(self, count: int) -> None:
        """Send images of which half is missing."""
        whole = [image.data for _, image in self._publishers]
        for (_, image), data in zip(self._publishers, whole):
            image.data = data[: len(data) // 2]
        for _ in range(count):
            self._publish()
            time.sleep(0.01)
        for (_, image), data in zip(self._publishers, whole):
            image.data = data

    def run(self, fps: float, seconds: float, warm_up: float = 1.0) -> Run:
        """Send from each camera at a rate; collect what is answered after the warm-up."""
        self._sent.clear()
        self._answers.clear()
        begin = time.monotonic() + warm_up
        end = begin + seconds
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if now < due:
                time.sleep(due - now)
            due += 1 / fps
            self._publish()
        time.sleep(0.3)
        sent = self._sent
        counted = sum(t >= begin for t in sent.values())
        answers = {n: t for n, t in self._answers.items() if begin <= t and n in sent}
        return Run(seconds, counted, [t - sent[n] for n, t in answers.items()])
