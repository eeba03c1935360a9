# SPDX-License-Identifier: Apache-2.0
"""A street with several signs and a perfect detector; prints how many boxes got the right class."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray

from repghost_ros.engine.overlay import draw_boxes
from repghost_ros.engine.results import Result
from repghost_ros.ros import messages
from repghost_ros.ros.process import run, start
from repghost_ros.sources.pictures import write_picture
from repghost_ros.sources.signs import NO_SIGN, sequence

_SIGNS = 4  # side by side
_SIDE = 160  # pixels of the picture around a sign
_REFRESH = 1.0  # seconds between two lines
_REMEMBERED = 120  # frames kept for late answers


class Street(Node):
    """Publishes `image` and `boxes`, and compares `detections` with what it showed.

    Args:
        frames: how many answers to wait for; 0: no limit.
        fps: frames a second.
        seed: which signs are shown.

    """

    def __init__(self, frames: int = 0, fps: float = 30.0, seed: int = 1) -> None:
        super().__init__("street")
        self.answers = self.boxes = self.right = 0
        self.done = False
        self.drawn: np.ndarray | None = None
        """The last answered picture with its boxes, BGR."""
        self._frames = frames
        self._printed = time.monotonic()
        self._shown: dict[tuple[int, int], tuple[list[str], np.ndarray]] = {}
        self._scenes = [
            sequence(seed + number, _SIDE, _SIDE, frames_per_scene=max(1, round(2 * fps)))
            for number in range(_SIGNS)
        ]
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._boxes = self.create_publisher(Detection2DArray, "boxes", 10)
        self.create_subscription(Detection2DArray, "detections", self._on_detections, 10)
        self.create_timer(1 / fps, self._publish)

    def _publish(self) -> None:
        shown = [next(scene) for scene in self._scenes]
        labels, picture = [label for label, _ in shown], np.hstack([part for _, part in shown])
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id="camera_optical_frame")
        self._shown[header.stamp.sec, header.stamp.nanosec] = labels, picture
        if len(self._shown) > _REMEMBERED:
            del self._shown[next(iter(self._shown))]
        found = Detection2DArray(header=header)
        for number, label in enumerate(labels):
            if label == NO_SIGN:  # a detector finds none there
                continue
            detection = Detection2D(header=header, id=str(number))
            detection.bbox.center.position.x = (number + 0.5) * _SIDE
            detection.bbox.center.position.y = _SIDE / 2
            detection.bbox.size_x = detection.bbox.size_y = float(_SIDE)
            found.detections.append(detection)
        self._images.publish(messages.image(header, picture, "bgr8"))
        self._boxes.publish(found)

    def _on_detections(self, message: Any) -> None:
        stamp = message.header.stamp
        shown = self._shown.pop((stamp.sec, stamp.nanosec), None)
        if shown is None or self.done:
            return
        labels, picture = shown
        self.answers += 1
        regions: list[tuple[tuple[int, int, int, int], Result | None]] = []
        lines = []
        for detection in message.detections:
            number, truth = int(detection.id), labels[int(detection.id)]
            hypotheses = [each.hypothesis for each in detection.results[:1]]
            best = next((Result(each.class_id, each.score) for each in hypotheses), None)
            self.boxes += 1
            self.right += best is not None and best.class_id == truth
            regions.append(((number * _SIDE, 0, _SIDE, _SIDE), best))
            lines.append(f"{truth} -> {best.class_id if best else 'nothing'}")
        self.done = self.answers == self._frames
        if time.monotonic() - self._printed > _REFRESH or self.done:
            self._printed = time.monotonic()
            print(" | ".join(lines), flush=True)
            rgb = np.ascontiguousarray(picture[..., ::-1])
            draw_boxes(rgb, regions)
            self.drawn = rgb[..., ::-1]


def main(args: list[str] | None = None) -> None:
    """Run until interrupted, or until `--frames` answers have arrived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=0, help="stop after so many (0: never)")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second")
    parser.add_argument("--seed", type=int, default=1, help="which signs are shown")
    parser.add_argument("--picture", default="", metavar="FILE", help="draw the last frame there")
    start(args)  # first: what ROS refuses, remove_ros_args raises at
    options = parser.parse_args(remove_ros_args(args or sys.argv)[1:])
    street = Street(options.frames, options.fps, options.seed)
    run(street, lambda: street.done)
    if street.boxes:
        share = street.right / street.boxes
        print(f"{street.right} of {street.boxes} boxes classified correctly ({share:.1%})")
    if options.picture and street.drawn is not None:
        write_picture(Path(options.picture), street.drawn)
        print(f"the last frame is drawn in {options.picture}")


if __name__ == "__main__":
    main()
