# SPDX-License-Identifier: Apache-2.0
"""Quality of answers: accuracy with its interval, the threshold of unknown, a learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repghost_ros.runs.reliability import fit_temperature

FALSE_ALARMS = 0.02
"""Share of pictures of no class that may be given one."""
LOST = 0.1
"""Share of right answers that the threshold may turn into `unknown`."""
_Z = 1.959964  # of 95 %
UNKNOWN = -1
"""Stands for `unknown` among class indices."""


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927); 0.0 to 1.0 where nothing was counted."""
    if not count:
        return 0.0, 1.0
    share, spread = hits / count, _Z * _Z / count
    middle = share + spread / 2
    half = _Z * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def softmax_rows(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities of float (pictures, classes) logits, at a temperature."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    made: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return made


def smoothed_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature that fits few pictures best.

    As Platt's "Probabilistic Outputs for Support Vector Machines" (1999) smooths their truth.
    """
    return fit_temperature(logits, truth, smoothing=1.0 / (len(truth) + 2))


def surprise(logits: np.ndarray, truth: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the truth, in which each class weighs the same."""
    likely = softmax_rows(logits, temperature)[np.arange(len(truth)), truth]
    weights = 1.0 / np.bincount(truth)[truth]
    return float(-(weights * np.log(np.maximum(likely, 1e-12))).sum() / weights.sum())


def answers(scores: np.ndarray, nothing: int | None, threshold: float) -> np.ndarray:
    """Return the class index that is answered for float (pictures, classes) scores, or UNKNOWN.

    That is the best class, unless it is `nothing` or its score is below the threshold.
    """
    best = scores.argmax(axis=1)
    refused = scores.max(axis=1) < threshold
    if nothing is not None:
        refused |= best == nothing
    return np.where(refused, UNKNOWN, best)


def fit_threshold(
    scores: np.ndarray, truth: np.ndarray, of_none: np.ndarray, nothing: int | None
) -> float:
    """Return the least threshold with few enough false alarms.

    Where that would lose too many right answers, the one with the largest share of right answers kept
    less the share of false alarms.

    Args:
        scores: float (pictures, classes) of pictures that show a class.
        truth: int (pictures,), their class indices.
        of_none: float (others, classes) of pictures that show none.
        nothing: index of the class `nothing`, if there is one.

    """
    right = scores.max(axis=1)[answers(scores, nothing, 0.0) == truth]
    alarms = of_none.max(axis=1)[answers(of_none, nothing, 0.0) != UNKNOWN]
    tried = [0.0, *(np.sort(np.nextafter(np.concatenate([right, alarms]), 2.0))).tolist()]
    tried = [threshold for threshold in tried if (right < threshold).sum() <= LOST * len(right)]
    false = [float((alarms >= threshold).sum()) / len(of_none) for threshold in tried]
    few = [
        threshold for threshold, share in zip(tried, false, strict=True) if share <= FALSE_ALARMS
    ]
    if few:
        return few[0]
    gains = [
        float((right >= t).sum()) / max(1, len(right)) - share
        for t, share in zip(tried, false, strict=True)
    ]
    return tried[int(np.argmax(gains))]


@dataclass(frozen=True)
class Curve:
    """Accuracy by the number of training pictures."""

    pictures: tuple[float, ...]
    """Of a class, on average."""
    accuracy: tuple[float, ...]
    """On pictures that were not trained with, 0.0 to 1.0."""

    def predicted(self, times: float) -> float | None:
        """Return the accuracy to expect of so many times the pictures; None where no trend is seen.

        The error is taken for a power of the number of pictures, fitted to the curve.
        """
        errors = 1.0 - np.array(self.accuracy)
        if len(set(self.pictures)) < 3 or (errors <= 0).any():
            return None
        slope, level = np.polyfit(np.log(self.pictures), np.log(errors), 1)
        if slope >= 0:
            return None
        most = self.pictures[-1]
        return float(1.0 - np.exp(level + slope * np.log(times * most)))


def confusion(truth: Sequence[int], answered: Sequence[int], classes: int) -> np.ndarray:
    """Return int (classes, classes + 1) counts: a row a class, `unknown` in the last column."""
    counts = np.zeros((classes, classes + 1), int)
    np.add.at(counts, (np.asarray(truth, int), np.asarray(answered, int)), 1)
    return counts
