"""Logits -> the k best classes with their probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CLASS_IDS = ("label", "index")
"""What results are named by."""


@dataclass(frozen=True)
class Score:
    """One class and how sure the model is of it."""

    index: int
    """Class index, 0 to classes - 1."""
    probability: float
    """Softmax probability, 0.0 to 1.0."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of float (classes,) logits as float64 (classes,), summing to 1.

    Raises:
        ValueError: a logit is NaN or infinite, so the model or device is broken.

    """
    if not np.isfinite(logits).all():
        raise ValueError("the model answered NaN or infinite logits: the model file may be corrupt")
    # Shifting by the maximum keeps exp() from overflowing.
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities: np.ndarray = exponentials / exponentials.sum()
    return probabilities


def top_k(logits: np.ndarray, k: int, threshold: float = 0.0) -> list[Score]:
    """The k most probable classes, best first, without those below the threshold.

    Args:
        logits: float (classes,).
        k: how many classes at most; more than there are gives all.
        threshold: least probability to report, 0.0 to 1.0.

    Raises:
        ValueError: a logit is NaN or infinite.

    """
    probabilities = softmax(logits)
    # The stable sort names the lower index first where two classes tie.
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [
        Score(int(index), float(probabilities[index]))
        for index in best
        if probabilities[index] >= threshold
    ]


def named(
    scores: Iterable[Score], labels: Sequence[str], class_id: str = "label"
) -> tuple[tuple[str, float], ...]:
    """The (class_id, score) pairs of an answer.

    Args:
        scores: best first.
        labels: class names in index order.
        class_id: one of CLASS_IDS.

    """
    return tuple(
        (labels[score.index] if class_id == "label" else str(score.index), score.probability)
        for score in scores
    )
