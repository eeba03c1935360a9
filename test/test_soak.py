# SPDX-License-Identifier: Apache-2.0
"""`make soak` fails for each of its reasons."""

from __future__ import annotations

from typing import Any

import pytest

from bench.soak import SILENCE, complaints

GOOD: dict[str, Any] = {
    "silence": SILENCE - 0.1,
    "inside": 0,
    "lost": 0,
    "code": 0,
    "left_behind": {},
}


def test_a_soak_passes_where_nothing_is_wrong() -> None:
    assert complaints(**GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        # Every frame may be accounted for: answers have stopped all the same.
        ({"silence": SILENCE + 1}, "no answer for 11.0 s"),
        ({"inside": 3}, "3 frames unaccounted for"),
        ({"lost": -1}, "-1 frames lost"),
        ({"code": -9}, "ended with -9"),
        ({"left_behind": {"live_tasks": "1"}}, "live_tasks"),
    ],
)
def test_a_soak_fails_for_each_reason_alone(wrong: dict[str, Any], reason: str) -> None:
    (complaint,) = complaints(**{**GOOD, **wrong})
    assert reason in complaint
