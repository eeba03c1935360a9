# SPDX-License-Identifier: Apache-2.0
"""Images and boxes meet by their stamps, and every one of them is accounted for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repghost_ros.engine.matching import MatchCounts, Matcher

MS = 1_000_000


def assert_whole(counts: MatchCounts) -> None:
    """Every image and every array has exactly one fate."""
    assert counts.images == (
        counts.matched
        + counts.images_without_boxes
        + counts.doubled_images
        + counts.unstamped_images
        + counts.waiting_images
    )
    assert counts.arrays == (
        counts.matched
        + counts.boxes_without_image
        + counts.late_boxes
        + counts.doubled_boxes
        + counts.unstamped_boxes
        + counts.waiting_boxes
    )


@pytest.mark.parametrize("first", ["image", "boxes"])
def test_either_may_come_first(first: str) -> None:
    matcher: Matcher[str, str] = Matcher()
    if first == "image":
        assert matcher.add_image(5, "image", 1, 0.0) is None
        assert matcher.add_boxes(5, "boxes", 1, 0.1) == ("image", "boxes")
    else:
        assert matcher.add_boxes(5, "boxes", 1, 0.0) is None
        assert matcher.add_image(5, "image", 1, 0.1) == ("image", "boxes")
    assert matcher.counts == MatchCounts(images=1, arrays=1, matched=1)


def test_stamps_match_exactly_unless_a_tolerance_is_set() -> None:
    exact: Matcher[str, str] = Matcher()
    exact.add_image(100 * MS, "image", 1, 0.0)
    assert exact.add_boxes(101 * MS, "boxes", 1, 0.0) is None
    tolerant: Matcher[str, str] = Matcher(tolerance_ns=2 * MS)
    tolerant.add_image(100 * MS, "far", 1, 0.0)
    tolerant.add_image(102 * MS, "near", 1, 0.0)
    tolerant.add_image(110 * MS, "beyond", 1, 0.0)
    assert tolerant.add_boxes(103 * MS, "boxes", 1, 0.0) == ("near", "boxes")


def test_no_image_waits_for_another() -> None:
    matcher: Matcher[int, int] = Matcher()
    for stamp in (1, 2, 3):
        matcher.add_image(stamp, stamp, 1, 0.0)
    assert [matcher.add_boxes(stamp, stamp, 1, 0.0) for stamp in (3, 1, 2)] == [
        (3, 3),
        (1, 1),
        (2, 2),
    ]


def test_what_stays_alone_is_given_up_after_a_second() -> None:
    matcher: Matcher[str, str] = Matcher()
    matcher.add_image(1, "image", 1, 0.0)
    matcher.add_boxes(2, "boxes", 1, 0.0)
    matcher.expire(0.9)
    assert matcher.counts.waiting_images == matcher.counts.waiting_boxes == 1
    matcher.expire(1.0)
    assert matcher.counts == MatchCounts(
        images=1, arrays=1, images_without_boxes=1, boxes_without_image=1
    )


def test_boxes_a_second_late_are_counted_as_late() -> None:
    matcher: Matcher[str, str] = Matcher(tolerance_ns=MS)
    matcher.add_image(10 * MS, "image", 1, 0.0)
    matcher.expire(1.0)
    assert matcher.add_boxes(11 * MS, "boxes", 1, 1.1) is None
    assert matcher.counts.late_boxes == 1
    assert_whole(matcher.counts)


def test_what_waits_is_bounded_in_bytes() -> None:
    matcher: Matcher[int, int] = Matcher(most_bytes=250)
    for stamp in range(1, 5):
        matcher.add_image(stamp, stamp, 100, 0.0)
    assert (matcher.counts.waiting_images, matcher.counts.images_without_boxes) == (2, 2)
    assert matcher.add_boxes(4, 4, 10, 0.0) == (4, 4)
    assert matcher.add_boxes(1, 1, 10, 0.0) is None
    assert matcher.counts.late_boxes == 1


def test_doubled_and_unstamped_ones_are_counted_by_their_own_names() -> None:
    matcher: Matcher[str, str] = Matcher()
    for _ in range(2):
        matcher.add_image(0, "unstamped", 1, 0.0)
        matcher.add_boxes(0, "unstamped", 1, 0.0)
        matcher.add_image(7, "image", 1, 0.0)
        matcher.add_boxes(7, "boxes", 1, 0.0)
    assert matcher.counts == MatchCounts(
        images=4,
        arrays=4,
        matched=1,
        doubled_images=1,
        doubled_boxes=1,
        unstamped_images=2,
        unstamped_boxes=2,
    )


def test_clearing_gives_up_everything() -> None:
    matcher: Matcher[str, str] = Matcher()
    matcher.add_image(1, "image", 0, 0.0)
    matcher.add_boxes(2, "boxes", 0, 0.0)
    matcher.clear()
    assert matcher.counts.waiting_images == matcher.counts.waiting_boxes == 0
    assert_whole(matcher.counts)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 60), st.floats(0.0, 0.4)),
        max_size=60,
    ),
    st.integers(0, 2),
)
def test_every_image_and_every_array_is_accounted_for(
    arrivals: Iterable[tuple[bool, int, int, float]], tolerance: int
) -> None:
    matcher: Matcher[int, int] = Matcher(tolerance_ns=tolerance, longest_s=0.5, most_bytes=100)
    now, pairs = 0.0, []
    for is_image, stamp, size, later in arrivals:
        now += later
        add = matcher.add_image if is_image else matcher.add_boxes
        if (pair := add(stamp, stamp, size, now)) is not None:
            pairs.append(pair)
        assert_whole(matcher.counts)
    assert matcher.counts.matched == len(pairs)
    assert all(abs(image - boxes) <= tolerance for image, boxes in pairs)
