"""Logits -> results: the best classes, their probabilities and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from repghost_ros.errors import BackendError, ParameterError

ClassId = Literal["label", "index"]
CLASS_IDS: tuple[ClassId, ...] = get_args(ClassId)
"""What a result's `class_id` can be."""


@dataclass(frozen=True, slots=True)
class Result:
    """One class and how sure the model is of it."""

    class_id: str
    """Name of the class, or its index as text."""
    score: float
    """Softmax probability, 0.0 to 1.0."""
    index: int | None = field(default=None, compare=False)
    """Class index, 0 to classes - 1; None where only the name was recorded."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of float (classes,) logits as float64 (classes,), summing to 1.

    Raises:
        BackendError: a logit is NaN or infinite, so the model or device is broken.

    """
    if not np.isfinite(logits).all():
        raise BackendError(
            "the model answered NaN or infinite logits: the model file may be corrupt"
        )
    # Shifting by the maximum keeps exp() from overflowing.
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities: np.ndarray = exponentials / exponentials.sum()
    return probabilities


def top_k(logits: np.ndarray, k: int, threshold: float = 0.0) -> list[tuple[int, float]]:
    """Index and probability of the k most probable classes, best first.

    Args:
        logits: float (classes,).
        k: how many classes at most; more than there are gives all.
        threshold: least probability to report, 0.0 to 1.0.

    Raises:
        BackendError: a logit is NaN or infinite.

    """
    probabilities = softmax(logits)
    # The stable sort names the lower index first where two classes tie.
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [
        (int(index), float(probabilities[index]))
        for index in best
        if probabilities[index] >= threshold
    ]


@dataclass(frozen=True)
class Reporting:
    """Which of a model's classes are reported, and what they are named by.

    Raises:
        ParameterError: a value is out of its bounds.

    """

    top_k: int = 5
    """How many classes at most."""
    score_threshold: float = 0.0
    """Least probability of a reported class, 0.0 to 1.0."""
    class_id: ClassId = "label"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ParameterError(f"top_k cannot be {self.top_k}: report at least one class")
        if not 0.0 <= self.score_threshold <= 1.0:
            raise ParameterError(
                f"score_threshold cannot be {self.score_threshold}: scores are from 0 to 1"
            )
        if self.class_id not in CLASS_IDS:
            raise ParameterError(
                f"class_id cannot be '{self.class_id}': choose one of {', '.join(CLASS_IDS)}"
            )

    def results(self, logits: np.ndarray, labels: Sequence[str]) -> tuple[Result, ...]:
        """The reported classes, best first.

        Args:
            logits: float (classes,).
            labels: class names in index order.

        Raises:
            BackendError: a logit is NaN or infinite.

        """
        by_label = self.class_id == "label"
        return tuple(
            Result(labels[index] if by_label else str(index), score, index)
            for index, score in top_k(logits, self.top_k, self.score_threshold)
        )
