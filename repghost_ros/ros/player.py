# SPDX-License-Identifier: Apache-2.0
"""Play a bag's images on the live graph with their original timing, where `ros2 bag` is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.ros.process import interrupted, wait_for_acknowledgement
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.types import COMPRESSED, IMAGE, ros2_topics

TYPES = {IMAGE: Image, COMPRESSED: CompressedImage}
_DEPTH = 100  # messages that a slow subscriber may lag behind
_CLOCK_PERIOD = 0.025  # seconds, as `ros2 bag play --clock`
_SETTLE = 0.5  # seconds; the other side matches a moment later, which DDS does not report
_ACKNOWLEDGE = 5.0  # seconds
_LONGEST_GAP_NS = 3_600_000_000_000  # a robot without a battery for its clock boots in 1970


class Player(Node):
    """Publishes a bag's topics, reliably, under the names of `ros2_topics` unless they are remapped.

    Args:
        bag: the opened bag; the caller closes it.
        topics: names of its image topics.
        clock: publish /clock, in the bag's time.

    """

    def __init__(self, bag: Bag, topics: Sequence[str], *, clock: bool = False) -> None:
        super().__init__("repghost_player")
        types = {topic.name: TYPES[topic.type] for topic in bag.topics(*TYPES)}
        self._bag = bag
        self._images = {
            name: self.create_publisher(types[name], allowed, QoSProfile(depth=_DEPTH))
            for name, allowed in ros2_topics(topics).items()
        }
        self._clock_publisher = self.create_publisher(Clock, "/clock", 1) if clock else None

    def wait_for_subscribers(self, count: int, others: Sequence[str] = ()) -> None:
        """Return once every topic has that many, and others, as of a recorder, have one.

        At once where none are wanted.
        """
        wanted = [(publisher.topic_name, count) for publisher in self._images.values()]
        wanted += [(self.resolve_topic_name(topic), 1) for topic in others]
        waited = 0.0
        while not interrupted():
            missing = [topic for topic, n in wanted if self.count_subscribers(topic) < n]
            if not missing:
                time.sleep(_SETTLE if waited else 0.0)
                return
            if waited > _SETTLE:
                self.get_logger().info(
                    f"waiting for subscribers of {', '.join(missing)}", throttle_duration_sec=5.0
                )
            time.sleep(_CLOCK_PERIOD)
            waited += _CLOCK_PERIOD

    def play(self, rate: float = 1.0, *, loop: bool = False) -> Iterator[str]:
        """Publish the bag; yields each message's topic once it is published.

        Args:
            rate: how many times as fast as it was recorded.
            loop: start over at the end until interrupted.

        Raises:
            SourceError: the bag is truncated or corrupt.

        """
        again = True
        try:
            while again:
                yield from self._play_once(rate)
                again = loop and not interrupted()
        finally:
            self._wait_for_acknowledgement()

    def _play_once(self, rate: float) -> Iterator[str]:
        started, played_ns, last_ns = time.monotonic(), 0, None
        for number, (topic, time_ns, raw) in enumerate(self._bag.serialized(*self._images), 1):
            gap_ns = time_ns - (time_ns if last_ns is None else last_ns)
            if gap_ns > _LONGEST_GAP_NS:
                self.get_logger().warning(
                    f"{gap_ns / 3.6e12:,.0f} hours without an image are skipped: was the clock set?"
                )
                gap_ns = 0
            played_ns += gap_ns
            last_ns = time_ns
            self._wait_until(started + played_ns / 1e9 / rate, time_ns, rate)
            if interrupted():
                return
            self._images[topic].publish(raw)
            if number % _DEPTH == 0:  # what is further behind would be lost
                self._wait_for_acknowledgement()
            yield topic

    def _wait_for_acknowledgement(self) -> None:
        for publisher in self._images.values():
            if not interrupted():
                wait_for_acknowledgement(publisher, longest=_ACKNOWLEDGE)

    def _wait_until(self, due: float, time_ns: int, rate: float) -> None:
        """Publish the clock up to `time_ns`, which falls at `due` on the monotonic clock."""
        while not interrupted() and (left := due - time.monotonic()) > 0:
            self._tick(time_ns - round(left * 1e9 * rate))
            time.sleep(min(left, _CLOCK_PERIOD))
        self._tick(time_ns)

    def _tick(self, time_ns: int) -> None:
        if self._clock_publisher is not None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
            self._clock_publisher.publish(message)
