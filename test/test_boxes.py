# SPDX-License-Identifier: Apache-2.0
"""Boxes become regions of an image, and which of them are classified."""

from __future__ import annotations

import math

import pytest

from repghost_ros.errors import FrameError, ParameterError
from repghost_ros.vision.boxes import Box, BoxChoice


def test_a_box_becomes_the_pixels_that_it_touches() -> None:
    assert Box(10.0, 20.0, 4.0, 6.0).roi(100, 100) == (8, 17, 4, 6)
    assert Box(10.2, 20.0, 4.0, 6.0).roi(100, 100) == (8, 17, 5, 6)


def test_a_scaled_box_keeps_its_center() -> None:
    assert Box(50.0, 50.0, 20.0, 10.0).roi(100, 100, scale=2.0) == (30, 40, 40, 20)


def test_a_box_is_cut_at_the_edges() -> None:
    assert Box(1.0, 98.0, 10.0, 10.0).roi(100, 100) == (0, 93, 6, 7)


@pytest.mark.parametrize("quarters", [1, -1, 3])
def test_a_box_rotated_by_a_right_angle_swaps_its_sides(quarters: int) -> None:
    box = Box(50.0, 50.0, 20.0, 10.0, theta=quarters * math.pi / 2)
    assert box.roi(100, 100) == (45, 40, 10, 20)


def test_a_rotated_box_is_enclosed_by_an_upright_one() -> None:
    assert Box(50.0, 50.0, 10.0, 10.0, theta=math.pi / 4).roi(100, 100) == (42, 42, 16, 16)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box(10, 10, 0, 5), "no area"),
        (Box(10, 10, 5, -1), "no area"),
        (Box(200, 10, 5, 5), "outside the image"),
        (Box(-3, 10, 6, 6), "outside"),
        (Box(math.nan, 10, 5, 5), "not finite"),
        (Box(10, 10, math.inf, 5), "not finite"),
        (Box(10, 10, 5, 5, theta=math.nan), "not finite"),
    ],
)
def test_a_box_that_shows_nothing_has_a_reason(box: Box, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        box.roi(100, 100)


def test_boxes_are_chosen_by_class_and_number() -> None:
    choice = BoxChoice(classes=frozenset({"car", "bus"}), most=2)
    boxes = [Box(1, 1, 1, 1, class_id=name) for name in ("car", "dog", "bus", "car")]
    taken = 0
    chosen = []
    for box in boxes:
        chosen.append(choice.takes(box, taken))
        taken += chosen[-1]
    assert chosen == [True, False, True, False]


@pytest.mark.parametrize("values", [{"scale": 0.0}, {"scale": math.nan}, {"most": 0}])
def test_impossible_choices_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="detections_"):
        BoxChoice(**values)  # type: ignore[arg-type]
