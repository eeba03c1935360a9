# SPDX-License-Identifier: Apache-2.0
"""Softmax, top-k and what is reported of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from repghost_ros.engine.results import Reporting, Result, softmax, top_k
from repghost_ros.errors import BackendError, ParameterError

LOGITS = arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**100), 2.0**100, width=32))


@given(LOGITS)
def test_softmax_is_a_distribution_however_large_the_logits(logits: np.ndarray) -> None:
    probabilities = softmax(logits)
    assert probabilities.sum() == pytest.approx(1.0)
    assert (probabilities >= 0).all()


@given(LOGITS, st.integers(1, 60), st.floats(0, 1))
def test_top_k_is_sorted_bounded_and_above_the_threshold(
    logits: np.ndarray, k: int, threshold: float
) -> None:
    scores = top_k(logits, k, threshold)
    assert len(scores) <= min(k, logits.size)
    assert all(a >= b for (_, a), (_, b) in pairwise(scores))
    assert all(probability >= threshold for _, probability in scores)


@given(LOGITS, st.integers(1, 60), st.sampled_from([0.0, 0.01]))
def test_top_k_is_what_a_stable_sort_would_give(
    logits: np.ndarray, k: int, threshold: float
) -> None:
    scores = softmax(logits)
    best = np.argsort(-scores, kind="stable")[:k]
    expected = [(int(i), float(scores[i])) for i in best if scores[i] >= threshold]
    assert top_k(logits, k, threshold) == expected


def test_known_values() -> None:
    scores = top_k(np.log(np.array([0.2, 0.7, 0.1], np.float32)), 2)
    assert [index for index, _ in scores] == [1, 0]
    assert [probability for _, probability in scores] == pytest.approx([0.7, 0.2], abs=1e-6)
    assert top_k(np.zeros(3, np.float32), 1) == [(0, 1 / 3)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_model_is_named(bad: float) -> None:
    with pytest.raises(BackendError, match="NaN or infinite"):
        softmax(np.array([0.0, bad], np.float32))


def test_reporting_names_by_label_or_index() -> None:
    logits = np.log(np.array([0.2, 0.7, 0.1], np.float32))
    names = ("yield", "stop", "no sign")
    best, second = Reporting(top_k=2).results(logits, names)
    assert best == Result("stop", best.score, 1)
    assert best.score == pytest.approx(0.7, abs=1e-6)
    assert second.class_id == "yield"
    (only,) = Reporting(top_k=3, score_threshold=0.5, class_id="index").results(logits, names)
    assert (only.class_id, only.index) == ("1", 1)


@pytest.mark.parametrize(
    "wrong", [{"top_k": 0}, {"score_threshold": 1.5}, {"class_id": "name"}], ids=str
)
def test_reporting_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Reporting(**wrong)


SIGNS = ("stop", "yield", "no entry", "crane", "crane")
LIKELY = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05], np.float32))


@pytest.mark.parametrize(
    ("asked", "reported"),
    [
        ({"class_allow": ("no entry", "stop")}, [0, 2]),
        ({"class_deny": ("stop",)}, [1, 2, 3, 4]),
        ({"class_allow": ("stop", "yield"), "class_deny": ("stop",)}, [1]),
        ({"class_allow": ("crane",)}, [3, 4]),  # both of that name
        ({"class_deny": ("stop",), "top_k": 2}, [1, 2]),  # two are left, not one
        ({"class_deny": ("yield",), "score_threshold": 0.12}, [0, 2]),
        ({"class_allow": ("yield",), "score_threshold": 0.5}, []),
        ({"class_allow": ("yield",), "class_id": "index"}, [1]),
    ],
)
def test_classes_are_filtered_before_the_best_are_chosen(
    asked: dict[str, Any], reported: list[int]
) -> None:
    results = Reporting(**asked).results(LIKELY, SIGNS)
    assert [result.index for result in results] == reported
    # Their probabilities are those among all classes.
    assert [r.score for r in results] == pytest.approx([softmax(LIKELY)[i] for i in reported])


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"class_allow": ("stpo",)}, "no class 'stpo': did you mean 'stop'"),
        ({"class_deny": ("zebra",)}, "no class 'zebra': its first is 'stop'"),
        ({"class_allow": ("stop",), "class_deny": ("stop",)}, "leave no class"),
    ],
)
def test_a_filter_that_does_not_fit_the_model_is_refused(
    asked: dict[str, Any], reason: str
) -> None:
    for use in (
        lambda: Reporting(**asked).check(SIGNS),
        lambda: Reporting(**asked).results(LIKELY, SIGNS),
    ):
        with pytest.raises(ParameterError, match=reason):
            use()
