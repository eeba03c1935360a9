"""Softmax and top-k."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from repghost_ros.results import Score, softmax, top_k

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
    assert all(a.probability >= b.probability for a, b in pairwise(scores))
    assert all(score.probability >= threshold for score in scores)


def test_known_values() -> None:
    scores = top_k(np.log(np.array([0.2, 0.7, 0.1], np.float32)), 2)
    assert [score.index for score in scores] == [1, 0]
    assert [score.probability for score in scores] == pytest.approx([0.7, 0.2], abs=1e-6)
    assert top_k(np.zeros(3, np.float32), 1) == [Score(0, 1 / 3)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_model_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        softmax(np.array([0.0, bad], np.float32))
