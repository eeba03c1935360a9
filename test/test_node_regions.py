# SPDX-License-Identifier: Apache-2.0
"""The node behind a detector: one answer for each box, whichever message comes first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from helpers.detections import BOXES, PICTURE, SIGNS, Detector, array, best
from helpers.graph import Robot, RunningNode, image, running_node, wait_until

from repghost_ros.vision.boxes import Box


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Robot, RunningNode]]:
    robot = Robot()
    with running_node(
        detections="boxes", diagnostics_period="0.2", qos_reliability="reliable"
    ) as node:
        yield robot, node
    robot.close()


@pytest.fixture(scope="module")
def detector(running: tuple[Robot, RunningNode]) -> Detector:
    return Detector(running[0])


def test_names_what_is_in_each_box(detector: Detector) -> None:
    answer = detector.ask(1, BOXES)
    assert best(answer) == SIGNS
    assert [each.id for each in answer.detections] == ["0", "1", "2", "3"]
    assert [each.bbox.center.position.x for each in answer.detections] == [60, 180, 300, 420]
    assert answer.header.frame_id == "camera_optical_frame"
    assert {len(each.results) for each in answer.detections} == {5}
    assert {result.pose.pose.position.x for result in answer.detections[0].results} == {1.5}


def test_boxes_may_come_before_their_image(detector: Detector) -> None:
    message = image(PICTURE, 2)
    detector.boxes.publish(array(message.header, BOXES[:2]))
    detector.count("waiting boxes", 1)
    detector.images.publish(message)
    assert best(detector.answer(2)) == SIGNS[:2]


def test_an_image_without_boxes_has_an_empty_answer(detector: Detector) -> None:
    assert detector.ask(3, []).detections == []


def test_a_box_that_shows_nothing_has_no_answer_and_a_reason(
    detector: Detector, running: tuple[Robot, RunningNode]
) -> None:
    bad = [
        Box(-500.0, 50.0, 10.0, 10.0),
        Box(50.0, 9000.0, 10.0, 10.0),
        Box(50.0, 50.0, 0.0, 10.0),
        Box(50.0, 50.0, 10.0, -10.0),
        Box(math.nan, 50.0, 10.0, 10.0),
    ]
    answer = detector.ask(4, [bad[0], BOXES[0], *bad[1:], BOXES[1]])
    assert best(answer) == [None, "stop", None, None, None, None, "yield"]
    wait_until(lambda: "box 0: " in running[1].output(), "a reason")
    assert best(detector.ask(5, bad[1:2])) == [None]


def test_thousands_of_boxes_are_answered_up_to_the_most(detector: Detector) -> None:
    message = image(PICTURE, 6)
    # The boxes first: to serialize so many takes the test longer than an image waits.
    detector.boxes.publish(array(message.header, [BOXES[0]] * 2_000))
    detector.count("waiting boxes", 1)
    detector.images.publish(message)
    answer = detector.answer(6)
    assert len(answer.detections) == 2_000
    answered = [len(each.results) == 5 for each in answer.detections]
    assert answered == [True] * 32 + [False] * 1_968
    # What is not classified keeps what the detector said.
    assert answer.detections[-1].results[0].hypothesis.class_id == "sign"


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_rotated_box_is_enclosed(detector: Detector, quarter: int) -> None:
    boxes = [replace(box, theta=quarter * math.pi / 2) for box in BOXES]
    assert best(detector.ask(10 + quarter, boxes)) == SIGNS


def test_stamps_of_zero_and_doubled_ones_are_counted(detector: Detector) -> None:
    message = image(PICTURE, 0)
    detector.images.publish(message)
    detector.boxes.publish(array(message.header, BOXES))
    detector.count("unstamped images", 1)
    detector.count("unstamped boxes", 1)
    message = image(PICTURE, 20)
    for _ in range(2):
        detector.images.publish(message)
        detector.boxes.publish(array(message.header, BOXES))
    detector.count("doubled images", 1)
    detector.count("doubled boxes", 1)
    assert best(detector.answer(20)) == SIGNS


def test_what_stays_alone_is_counted_by_its_own_name(detector: Detector) -> None:
    lone = image(PICTURE, 30)
    detector.images.publish(lone)
    detector.boxes.publish(array(image(PICTURE, 31).header, BOXES))
    detector.count("images without boxes", 1)
    detector.count("boxes without image", 1)
    detector.boxes.publish(array(lone.header, BOXES))
    detector.count("late boxes", 1)


def test_an_unreadable_image_is_refused_and_the_next_one_answered(
    detector: Detector, running: tuple[Robot, RunningNode]
) -> None:
    broken = image(PICTURE, 40)
    broken.step = 7
    detector.images.publish(broken)
    detector.boxes.publish(array(broken.header, BOXES))
    assert best(detector.ask(41, BOXES)) == SIGNS
    assert not any(answer.header.stamp.sec == 40 for answer in detector.answers)
    assert "refused" in running[1].output()
