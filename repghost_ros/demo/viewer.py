# SPDX-License-Identifier: Apache-2.0
"""Prints the camera's truth next to the classifier's answer, and draws a few of the frames."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from repghost_ros.demo.display import Display, Sighting
from repghost_ros.engine.overlay import draw_overlay, picture
from repghost_ros.engine.results import Result
from repghost_ros.ros import messages
from repghost_ros.ros.process import run, start
from repghost_ros.sources.pictures import write_picture
from repghost_ros.vision.frame import from_image

_REFRESH = 0.5  # seconds between two lines
_LEAST = 0.01  # score of a runner-up that is worth drawing
_REMEMBERED = 120  # frames whose truth and picture are kept for late answers


class _Shown(NamedTuple):
    """One classified frame for the picture."""

    rgb: np.ndarray
    truth: str
    results: list[Result]


class Viewer(Node):
    """Matches `image`, `truth` and `classification` by stamp and keeps count.

    Args:
        frames: how many answers to wait for; 0: no limit.
        pictures: number of different signs to keep for `contact_sheet`.

    """

    def __init__(self, frames: int = 0, pictures: int = 9) -> None:
        super().__init__("viewer")
        self.answers = 0
        self.right = 0
        self.done = False
        self.shown: dict[str, _Shown] = {}
        self._frames = frames
        self._pictures = pictures
        self._truth: dict[tuple[int, int], str] = {}
        self._images: dict[tuple[int, int], Image] = {}
        self._times: deque[float] = deque(maxlen=60)
        self._printed = 0.0
        sensor = qos_profile_sensor_data
        self.create_subscription(messages.Classification, "truth", self._on_truth, 10)
        self.create_subscription(Image, "image", self._on_image, sensor)
        self.create_subscription(
            messages.Classification, "classification", self._on_classification, 10
        )
        self._scene: Sighting | None = None
        self.display = Display()

    def _on_truth(self, message: Any) -> None:
        _remember(self._truth, message.header.stamp, messages.results(message)[0].class_id)

    def _on_image(self, message: Image) -> None:
        _remember(self._images, message.header.stamp, message)

    def _on_classification(self, message: Any) -> None:
        truth = self._truth.get(_key(message.header.stamp))
        results = messages.results(message)
        if truth is None or self.done:  # published before this viewer listened
            return
        now = time.monotonic()
        self._times.append(now)
        self.answers += 1
        right = bool(results) and results[0].class_id == truth
        self.right += right
        self._keep(message.header.stamp, truth, results)
        self.done = self.answers == self._frames
        self._count(truth, results, right)
        if now - self._printed > _REFRESH or self.done:
            self._printed = now
            assert self._scene is not None
            age = self.get_clock().now() - Time.from_msg(message.header.stamp)
            seconds = now - self._times[0]
            self._scene.latency_ms = age.nanoseconds / 1e6
            self._scene.fps = (len(self._times) - 1) / seconds if seconds else 0.0
            self.display.show(self._scene)

    def _count(self, truth: str, results: list[Result], right: bool) -> None:
        if self._scene is None or self._scene.truth != truth:
            self._scene = Sighting(truth)
        self._scene.frames += 1
        self._scene.right += right
        if results:
            self._scene.answer, self._scene.score = results[0].class_id, results[0].score

    def _keep(self, stamp: Any, truth: str, results: list[Result]) -> None:
        image = self._images.get(_key(stamp))
        if image is not None and truth not in self.shown and len(self.shown) < self._pictures:
            self.shown[truth] = _Shown(picture(from_image(image)), truth, results)

    def contact_sheet(self) -> np.ndarray:
        """Draw the kept frames, full rows of three, with their top 3: RGB uint8 (height, width, 3)."""
        tiles = []
        for shown in self.shown.values():
            tile = cv2.resize(shown.rgb, (320, 240), interpolation=cv2.INTER_AREA)
            draw_overlay(tile, [best for best in shown.results[:3] if best.score >= _LEAST])
            tiles.append(tile)
        columns = min(3, len(tiles))
        rows = [tiles[i : i + columns] for i in range(0, len(tiles) - columns + 1, columns)]
        return np.vstack([np.hstack(row) for row in rows])


def _key(stamp: Any) -> tuple[int, int]:
    return stamp.sec, stamp.nanosec


def _remember(memory: dict[tuple[int, int], Any], stamp: Any, value: Any) -> None:
    memory[_key(stamp)] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]


def main(args: list[str] | None = None) -> None:
    """View until interrupted, or until `--frames` answers have arrived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=0, help="stop after so many (0: never)")
    parser.add_argument(
        "--picture", default="", metavar="FILE", help="draw a few classified frames into this PNG"
    )
    start(args)  # first: what ROS refuses, remove_ros_args raises at
    options = parser.parse_args(remove_ros_args(args or sys.argv)[1:])
    viewer = Viewer(options.frames)
    run(viewer, lambda: viewer.done)
    viewer.display.close()
    if viewer.answers:
        share = viewer.right / viewer.answers
        print(f"{viewer.right} of {viewer.answers} frames classified correctly ({share:.1%})")
    if options.picture and viewer.shown:
        write_picture(Path(options.picture), viewer.contact_sheet()[..., ::-1])
        print(f"a few of them are drawn in {options.picture}")


if __name__ == "__main__":
    main()
