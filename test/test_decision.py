# SPDX-License-Identifier: Apache-2.0
"""Decisions for robots: changes of the top class, and smoothed probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from repghost_ros.backends.base import Times
from repghost_ros.engine.decision import ChangeDetector, Smoothing
from repghost_ros.engine.model import Answered
from repghost_ros.engine.request import Request
from repghost_ros.vision.frame import from_array
from repghost_ros.zoo.own import Own


def test_a_change_must_last() -> None:
    change = ChangeDetector()
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
    change = ChangeDetector()
    assert not change.update("cat", 100.0, 0.5)
    assert not change.update("cat", 1.0, 0.5)
    assert change.update("cat", 1.5, 0.5)


LABELS = ("cat", "dog")
MODEL = SimpleNamespace(labels=LABELS, activation="none", own=Own())


def smoothed(smoothing: Smoothing, cat: float, stamp: float, model: Any = MODEL) -> float:
    """Return the cat's score after an answer with this probability."""
    request: Request[None] = Request(None, from_array)
    probabilities = np.array([cat, 1 - cat], np.float32)
    answered = Answered(request, model, [], probabilities, Times(0.0, 0.0, 0.0), None)
    results = smoothing.update(answered, stamp, 0.75).results
    (score,) = (result.score for result in results if result.class_id == "cat")
    return score


def test_probabilities_are_averaged_over_time() -> None:
    smoothing = Smoothing()
    assert smoothed(smoothing, 1.0, 0.0) == 1.0
    assert smoothed(smoothing, 0.0, 0.1) == pytest.approx(0.75)
    assert smoothed(smoothing, 0.0, 0.2) == pytest.approx(0.75**2)
    assert smoothed(smoothing, 0.0, 1.2) == pytest.approx(0.75**3)


@pytest.mark.parametrize("stamp", [5.0 - 0.001, 6.001], ids=["back", "a gap"])
def test_the_mean_begins_anew_where_stamps_jump(stamp: float) -> None:
    smoothing = Smoothing()
    smoothed(smoothing, 1.0, 5.0)
    assert smoothed(smoothing, 0.25, stamp) == 0.25


def test_the_mean_begins_anew_with_another_model() -> None:
    smoothing = Smoothing()
    smoothed(smoothing, 1.0, 0.0)
    assert smoothed(smoothing, 0.25, 0.1, SimpleNamespace(**vars(MODEL))) == 0.25
