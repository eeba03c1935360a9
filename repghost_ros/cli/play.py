# SPDX-License-Identifier: Apache-2.0
"""Publish a bag's images onto the live ROS graph with their original timing."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import positive, positive_float
from repghost_ros.cli.report import Interrupted
from repghost_ros.cli.terminal import with_bar
from repghost_ros.errors import SourceError, UsageError, need
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.types import COMPRESSED, IMAGE, ros2_topics

HELP = "publish a bag's images on the ROS graph"
_ROS = "source a ROS 2 installation"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlayReport:
    """The number of messages published per topic."""

    published: dict[str, int]
    error: str
    """Why the bag broke off; empty if it did not."""

    @property
    def failed(self) -> bool:
        """True if the bag was cut off; everything before the cut was played."""
        return bool(self.error)

    def text(self) -> Iterator[str]:
        """One line per topic."""
        for topic, count in self.published.items():
            yield f"{topic}: {count} messages published"

    def as_json(self) -> dict[str, Any]:
        """One dict per topic."""
        results = [{"topic": topic, "messages": n} for topic, n in self.published.items()]
        return {"results": results, **({"error": self.error} if self.error else {})}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost play`."""
    parser.add_argument("bag", type=Path, metavar="BAG")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        help="image topic; may be repeated (default: all)",
    )
    parser.add_argument(
        "--rate",
        type=positive_float,
        default=1.0,
        help="playback speed factor (default: %(default)s)",
    )
    parser.add_argument("--loop", action="store_true", help="repeat until interrupted")
    parser.add_argument("--clock", action="store_true", help="publish /clock in the bag's time")
    parser.add_argument(
        "--wait",
        type=positive,
        default=0,
        metavar="N",
        help="start once every topic has N subscribers",
    )
    parser.add_argument(
        "--wait-for",
        action="append",
        default=[],
        metavar="TOPIC",
        help="start once this topic has a subscriber, such as a recorder; may be repeated",
    )
    parser.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="remaining arguments go to ROS, for remapping",
    )


def run(options: argparse.Namespace) -> PlayReport:
    """Play until the end, or until interrupted."""
    with Bag(options.bag) as bag:
        found = {topic.name: topic for topic in bag.topics(IMAGE, COMPRESSED)}
        topics = [bag.image_topic(topic).name for topic in options.topic] or list(found)
        if not topics:
            bag.image_topic()  # its error lists the topics
        messages = sum(found[topic].messages for topic in topics)
        if not messages:
            raise SourceError(f"bag '{options.bag}' holds no message on {', '.join(topics)}")
        process = need("repghost_ros.ros.process", _ROS)
        player_module = need("repghost_ros.ros.player", _ROS)
        try:
            process.init(["repghost", "--ros-args", *options.ros_args])
        except Exception as error:  # rclpy raises many types
            raise UsageError(f"--ros-args: {error}") from error
        for topic, allowed in ros2_topics(topics).items():
            if allowed != topic:
                _log.warning(
                    "'%s' is published as '%s': ROS 2 does not allow its name", topic, allowed
                )
        published, broken = dict.fromkeys(topics, 0), None
        total = None if options.loop else messages
        try:
            player = player_module.Player(bag, topics, clock=options.clock)
            player.wait_for_subscribers(options.wait, options.wait_for)
            for topic in with_bar(player.play(options.rate, loop=options.loop), total, "image"):
                published[topic] += 1
        except SourceError as error:  # the bag is cut off: everything before the cut was played
            broken = error
        finally:
            process.shutdown()
    report = PlayReport(published, str(broken or ""))
    if broken:
        _log.error(report.error)
    # An endless loop can end only by an interrupt.
    if process.interrupted() and not options.loop:
        raise Interrupted(report)
    return report
