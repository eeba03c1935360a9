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

from repghost_ros.backends.base import Activation, Ranking
from repghost_ros.engine.results import (
    UNKNOWN_INDEX,
    Reporting,
    Result,
    decision,
    log_probabilities,
    probabilities,
    sigmoid,
    softmax,
    top_k,
)
from repghost_ros.errors import BackendError, ParameterError
from repghost_ros.zoo.own import NOTHING, Own

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
    outputs = np.array([0.0, bad], np.float32)
    for scores in (softmax, sigmoid):
        with pytest.raises(BackendError, match="NaN or infinite"):
            scores(outputs)
    with pytest.raises(BackendError, match="not probabilities"):
        probabilities(outputs, "none")


def test_a_sigmoid_is_that_of_the_formula_and_saturates() -> None:
    logits = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, -1e30, 1e30], np.float32)
    expected = [1 / (1 + np.exp(-x)) for x in (-3.0, -1.0, 0.0, 0.5, 2.0)] + [0.0, 1.0]
    assert sigmoid(logits) == pytest.approx(expected, abs=1e-15)
    assert logits[0] == -3.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_divides_the_logits_also_of_probabilities(temperature: float) -> None:
    logits = np.array([2.0, -1.0, 0.5])
    together: list[Activation] = ["softmax", "none"]
    each: list[Activation] = ["sigmoid", "independent"]
    for expected, (of_logits, of_scores) in (
        (np.exp(logits / temperature) / np.exp(logits / temperature).sum(), together),
        (1 / (1 + np.exp(-logits / temperature)), each),
    ):
        assert probabilities(logits, of_logits, temperature) == pytest.approx(expected)
        scores = probabilities(logits, of_logits)
        assert probabilities(scores, of_scores, temperature) == pytest.approx(expected)
        assert top_k(scores, 1, 0.0, of_scores) == [(0, scores[0])]


@pytest.mark.parametrize("activation", ["none", "independent"])
def test_probabilities_may_be_a_step_of_int8_outside_and_no_more(activation: Activation) -> None:
    assert probabilities(np.array([-0.019, 1.019]), activation).tolist() == [0.0, 1.0]
    for wrong in ([-0.02, 0.5], [0.5, 1.02], [-3.0, 0.5], [0.5, 7.0]):
        with pytest.raises(BackendError, match=f"from {wrong[0]:g} to {wrong[1]:g}: set act"):
            probabilities(np.array(wrong), activation)
    certain = probabilities(np.array([0.0, 1.0]), activation, 2.0)
    assert certain == pytest.approx([0.0, 1.0], abs=1e-150)


def test_logarithms_are_finite() -> None:
    tiny = np.finfo(np.float64).tiny
    logarithms = log_probabilities(np.array([0.0, 0.25, 1.0]), "none")
    assert logarithms.tolist() == [np.log(tiny), np.log(0.25), 0.0]


def test_a_lone_score_decides_between_two_classes() -> None:
    scores = ([0.49], [0.5], [0.9], [0.6, 0.4], [0.2, 0.4, 0.4])
    assert [decision(np.array(each)) for each in scores] == [0, 1, 1, 0, 1]


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
    "wrong",
    [
        {"top_k": 0},
        {"score_threshold": -0.01},
        {"score_threshold": 1.01},
        {"score_threshold": float("nan")},
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"unknown": "maybe"},
        {"class_id": "name"},
    ],
    ids=str,
)
def test_reporting_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ParameterError, match=f"^{name} cannot be '?{value}'?: "):
        Reporting(**wrong)


def test_five_classes_are_reported_unless_others_are_asked_for() -> None:
    logits = np.arange(9, dtype=np.float32)
    results = Reporting().results(logits, tuple("abcdefghi"))
    assert [each.class_id for each in results] == ["i", "h", "g", "f", "e"]


def test_a_result_read_back_without_its_index_is_the_same() -> None:
    assert Result("stop", 0.5, 3) == Result("stop", 0.5)
    assert Result("stop", 0.5) != Result("stop", 0.25)


def test_reporting_takes_its_bounds() -> None:
    for threshold in (0.0, 1.0):
        Reporting(top_k=1, score_threshold=threshold, temperature=0.001)


def test_only_the_models_own_best_are_ranked_by_a_backend() -> None:
    assert Reporting(top_k=3, score_threshold=0.1).ranking == Ranking(3, 0.1)
    for other in ({"temperature": 2.0}, {"class_allow": ("a",)}, {"class_deny": ("a",)}):
        assert Reporting(**other).ranking is None  # type: ignore[arg-type]


TAUGHT = Own(("a", NOTHING, "b"), unknown_below=0.3)
SURE, UNSURE, ABSENT = [(0, 0.3), (1, 0.2)], [(2, 0.29), (0, 0.2)], [(1, 0.9), (0, 0.1)]


@pytest.mark.parametrize(
    ("best", "own", "asked", "judged"),
    [
        (SURE, TAUGHT, "label", SURE),
        (UNSURE, TAUGHT, "label", [(UNKNOWN_INDEX, 1 - 0.29)]),
        (ABSENT, TAUGHT, "label", [(UNKNOWN_INDEX, 1 - 0.1)]),
        ([(1, 0.9)], TAUGHT, "label", [(UNKNOWN_INDEX, 1.0)]),
        ([], TAUGHT, "label", []),
        (UNSURE, TAUGHT, "none", []),
        (SURE, TAUGHT, "none", SURE),
        (UNSURE, TAUGHT, "best", UNSURE),
        (ABSENT, TAUGHT, "best", ABSENT),
        (UNSURE, Own(TAUGHT.labels), "label", UNSURE),  # not of a taught model
    ],
)
def test_a_taught_model_may_know_no_class(best: Any, own: Own, asked: Any, judged: Any) -> None:
    assert list(Reporting(unknown=asked).judged(best, own)) == judged


@pytest.mark.parametrize("class_id", ["label", "index"])
def test_unknown_has_its_name_and_no_index(class_id: Any) -> None:
    named = Reporting(class_id=class_id).named([(UNKNOWN_INDEX, 0.6), (0, 0.4)], ("a", "b"))
    assert [(each.class_id, each.score, each.index) for each in named] == [
        ("unknown", 0.6, None),
        ("a" if class_id == "label" else "0", 0.4, 0),
    ]


def test_scores_stay_as_they_are() -> None:
    scores = np.array([0.1, 0.7, 0.2])
    assert Reporting(top_k=2).best_of(scores, ("a", "b", "c")) == [(1, 0.7), (2, 0.2)]
    assert scores.tolist() == [0.1, 0.7, 0.2]


def test_a_score_at_the_threshold_is_reported() -> None:
    assert top_k(np.array([0.25, 0.5, 0.25]), 3, 0.25, "none") == [(1, 0.5), (0, 0.25), (2, 0.25)]


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
