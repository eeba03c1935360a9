# SPDX-License-Identifier: Apache-2.0
"""A street with several signs, and the boxes that a perfect detector would find."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from helpers.graph import Robot, image, wait_until
from repghost_ros.sources.signs import render
from repghost_ros.vision.boxes import Box

SIDE = 120
"""Pixels of a sign's picture."""


def street(labels: Sequence[str], seed: int = 1) -> tuple[np.ndarray, list[Box]]:
    """Draw a row of signs, BGR uint8 (120, 120 * n, 3); return it with their boxes."""
    signs = [render(label, np.random.default_rng(seed), SIDE, SIDE) for label in labels]
    boxes = [
        Box(SIDE * (number + 0.5), SIDE / 2, SIDE, SIDE, class_id="sign", score=0.9, id=f"{number}")
        for number in range(len(labels))
    ]
    return np.hstack(signs), boxes


def array(header: Header, boxes: Sequence[Box]) -> Any:
    """Return the boxes as a Detection2DArray under an image's header."""
    message = Detection2DArray(header=header)
    for box in boxes:
        hypothesis = ObjectHypothesis(class_id=box.class_id, score=box.score)
        detection = Detection2D(header=header, id=box.id)
        detection.results = [ObjectHypothesisWithPose(hypothesis=hypothesis)]
        detection.results[0].pose.pose.position.x = 1.5
        center = detection.bbox.center
        center.position.x, center.position.y = float(box.x), float(box.y)
        center.theta = float(box.theta)
        detection.bbox.size_x = float(box.width)
        detection.bbox.size_y = float(box.height)
        message.detections.append(detection)
    return message


def best(message: Any) -> list[str | None]:
    """Return the best class of each detection, None where it has none."""
    return [
        each.results[0].hypothesis.class_id if each.results else None for each in message.detections
    ]


SIGNS = ["stop", "yield", "roundabout", "no entry"]
PICTURE, BOXES = street(SIGNS)


class Detector:
    """Publishes images and boxes, and finds the answers."""

    def __init__(self, robot: Robot) -> None:
        self.images = robot.publisher()
        self.boxes = robot.publisher("boxes", Detection2DArray)
        self.answers = robot.collect(Detection2DArray, "repghost/detections")
        self.diagnostics = robot.collect(DiagnosticArray, "/diagnostics")
        # Both topics are connected once a first image has its answer.
        stamps = itertools.count(1000)

        def is_connected() -> bool:
            message = image(PICTURE, next(stamps))
            self.images.publish(message)
            self.boxes.publish(array(message.header, []))
            time.sleep(0.1)
            return bool(self.answers)

        wait_until(is_connected, "a first answer")

    def ask(self, stamp: int, boxes: list[Box], picture: np.ndarray = PICTURE) -> Any:
        message = image(picture, stamp)
        self.images.publish(message)
        self.boxes.publish(array(message.header, boxes))
        return self.answer(stamp)

    def answer(self, stamp: int) -> Any:
        return wait_until(
            lambda: next((a for a in self.answers if a.header.stamp.sec == stamp), None),
            f"the answer to {stamp}",
        )

    def count(self, name: str, least: int) -> None:
        """Wait until /diagnostics tells so many."""

        def told() -> bool:
            values = [
                value
                for message in self.diagnostics
                for status in message.status
                for value in status.values
                if value.key == name
            ]
            return bool(values) and int(values[-1].value) >= least

        wait_until(told, f"{least} {name}")
