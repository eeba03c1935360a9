# SPDX-License-Identifier: Apache-2.0
"""Publishes one picture at a fixed rate, and counts and times the answers: the bench's robot side."""

from __future__ import annotations

import threading
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from repghost_ros.ros import messages
from repghost_ros.ros.executors import fastest_executor, spin


@dataclass
class Run:
    """What came back of one run."""

    seconds: float
    sent: int
    latencies: list[float] = field(default_factory=list)
    """Seconds from publication to the answer's arrival, of the answers of the run."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """A latency in milliseconds."""
        return (
            float(np.percentile(self.latencies, percent)) * 1e3 if self.latencies else float("nan")
        )


class Camera:
    """A participant that sends NV12 images on `image` and takes the answers of one node."""

    def __init__(
        self,
        node_name: str,
        width: int = 224,
        height: int = 224,
        qos: QoSProfile = qos_profile_sensor_data,
    ) -> None:
        self.published = 0
        self.longest_silence = 0.0
        """Seconds between two answers."""
        self._last_answer = float("inf")
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node("bench_camera", context=self._context)
        self._publisher = self._node.create_publisher(Image, "image", qos)
        self._node.create_subscription(
            messages.Classification,
            f"/{node_name}/classification",
            self._on_answer,
            QoSProfile(depth=1000),
        )
        data = np.random.default_rng(0).integers(0, 256, width * height * 3 // 2, dtype=np.uint8)
        self._image = Image(encoding="nv12", width=width, height=height, step=width)
        self._image.data = array("B", data.tobytes())
        self._answers: dict[int, float] = {}
        self._number = 1000
        self._executor = fastest_executor(self._context)
        self._executor.add_node(self._node)
        self._closing = False
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self._context, lambda: self._closing)
        )
        self._thread.start()

    def _on_answer(self, message: Any) -> None:
        now = time.monotonic()
        self._answers[message.header.stamp.sec] = now
        self._note_silence(now)
        self._last_answer = now

    def _note_silence(self, now: float) -> None:
        self.longest_silence = max(self.longest_silence, now - self._last_answer)

    def silence(self) -> float:
        """The longest time in seconds without an answer so far, the latest included."""
        self._note_silence(time.monotonic())
        return self.longest_silence

    def _publish(self) -> None:
        self._publisher.publish(self._image)
        self.published += 1

    def wait_for_node(self) -> None:
        """Send now and then until an answer comes."""
        number = 0
        while not self._answers:
            self._image.header.stamp.sec = number = number + 1
            self._publish()
            time.sleep(0.05)

    def send_broken(self, count: int) -> None:
        """Send images whose step is too small."""
        step, self._image.step = self._image.step, 1
        for _ in range(count):
            self._publish()
            time.sleep(0.01)
        self._image.step = step

    def run(self, fps: float, seconds: float, warm_up: float = 1.0) -> Run:
        """Send at a rate and collect what is answered of what was sent after the warm-up."""
        sent: dict[int, float] = {}
        start = time.monotonic()
        number = self._number
        begin, end = start + warm_up, start + warm_up + seconds
        due = start
        while (now := time.monotonic()) < end:
            if now < due:
                time.sleep(due - now)
            number += 1
            due += 1 / fps
            self._image.header.stamp.sec = number
            sent[number] = time.monotonic()
            self._publish()
        self._number = number
        time.sleep(0.3)
        counted = {n: t for n, t in sent.items() if t >= begin}
        answers = {n: t for n, t in self._answers.items() if begin <= t and n in sent}
        self._answers.clear()
        return Run(seconds, len(counted), [t - sent[n] for n, t in answers.items()])

    def close(self) -> None:
        """Leave the graph."""
        self._closing = True
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()
