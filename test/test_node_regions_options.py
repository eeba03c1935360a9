# SPDX-License-Identifier: Apache-2.0
"""The node behind a detector, with other parameters: a node for each test."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
from helpers.detections import BOXES, PICTURE, SIGNS, Detector, array, best, street
from helpers.graph import RELIABLE, Robot, image, running_node, wait_until
from helpers.waiting import WAIT
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray


def test_chosen_classes_scale_tolerance_and_jpegs() -> None:
    robot = Robot()
    with running_node(
        detections="boxes",
        detections_classes="[sign]",
        detections_max="2",
        detections_scale="0.9",
        detections_tolerance="0.5",
        qos_reliability="reliable",
    ):
        images = robot.publisher("image/compressed", CompressedImage)
        boxes = robot.publisher("boxes", Detection2DArray)
        answers = robot.collect(Detection2DArray, "repghost/detections")
        header = image(PICTURE, 7).header
        jpeg = cv2.imencode(".jpg", PICTURE)[1].tobytes()
        images.publish(CompressedImage(header=header, format="jpeg", data=jpeg))
        later = image(PICTURE, 7).header
        later.stamp.nanosec = 400_000_000
        dog = replace(BOXES[0], class_id="dog")
        boxes.publish(array(later, [dog, *BOXES[1:]]))
        (answer,) = wait_until(lambda: answers, "the answer")
        assert best(answer) == [
            "sign" if n == 3 else ("dog" if n == 0 else SIGNS[n]) for n in range(4)
        ]
        assert answer.header == later
    robot.close()


def test_smoothing_and_changes_go_by_the_objects_id() -> None:
    robot = Robot()
    with running_node(detections="boxes", smoothing="0.9", hold="1.0", qos_reliability="reliable"):
        detector = Detector(robot)
        changed = robot.collect(Detection2DArray, "repghost/changed")
        picture, boxes = street(["stop", "yield"])
        stamps = itertools.count(50, 10)

        def has_changed() -> bool:
            """Show two new objects for a second, in which they change places in the array."""
            stamp = next(stamps)
            objects = [replace(box, id=f"{stamp} {box.id}") for box in boxes]
            assert best(detector.ask(stamp, objects, picture)) == ["stop", "yield"]
            assert best(detector.ask(stamp + 1, objects[::-1], picture)) == ["yield", "stop"]
            return bool(changed)

        wait_until(has_changed, "a change")  # the first ones may come before the topic is connected
        assert best(changed[0]) == ["yield", "stop"]
        assert changed[0].header.stamp.sec % 10 == 1
    robot.close()


def test_the_overlay_shows_the_boxes() -> None:
    robot = Robot()
    with running_node(detections="boxes", qos_reliability="reliable"):
        detector = Detector(robot)
        overlays = robot.collect(Image, "repghost/overlay", RELIABLE)
        stamp = 60
        while not overlays:
            detector.ask(stamp, BOXES)
            stamp += 1
        shown = np.frombuffer(bytes(overlays[0].data), np.uint8).reshape(PICTURE.shape)
        assert (shown[0, 60] == (60, 220, 60)).all()  # a box's upper edge
    robot.close()


def test_a_region_of_interest_is_for_whole_images() -> None:
    with running_node(detections="boxes", roi="[1, 1, 8, 8]", required="true") as node:
        node.process.wait(WAIT)
        assert "'roi' is for whole images" in node.output()
        node.process.returncode = 0


def test_a_broken_array_refuses_its_image_alone() -> None:
    robot = Robot()
    with running_node(detections="boxes", qos_reliability="reliable") as node:
        detector = Detector(robot)
        message = image(PICTURE, 70)
        whole = serialize_message(array(message.header, BOXES))
        detector.images.publish(message)
        detector.boxes.publish(whole[: len(whole) // 2])
        wait_until(lambda: "array of boxes cannot be read" in node.output(), "the reason")
        assert best(detector.ask(71, BOXES)) == SIGNS
    robot.close()
