# SPDX-License-Identifier: Apache-2.0
"""Changes of the top class."""

from __future__ import annotations

from repghost_ros.stream.decision import Change


def test_a_change_must_last() -> None:
    change = Change()
    assert [
        change.update(top, stamp, 0.5)
        for top, stamp in [
            ("cat", 0.0),
            ("cat", 0.5),  # the first is a change too
            ("dog", 0.6),
            ("cat", 0.7),  # a flicker
            ("dog", 0.8),
            ("dog", 1.2),
            ("dog", 1.3),
            ("dog", 9.0),
        ]
    ] == [False, True, False, False, False, False, True, False]


def test_a_clock_that_jumps_back_begins_anew() -> None:
    change = Change()
    assert not change.update("cat", 100.0, 0.5)
    assert not change.update("cat", 1.0, 0.5)
    assert change.update("cat", 1.5, 0.5)
