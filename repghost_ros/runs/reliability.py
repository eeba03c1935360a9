# SPDX-License-Identifier: Apache-2.0
"""Calibration: whether a score of 0.9 is right in 90 of 100 cases, and the temperature for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
_MOST = 5000  # pictures that a temperature is fitted to
_RANGE = (0.05, 20.0)  # range of temperatures
_HALF_CHI_SQUARE = 1.92  # of 95 %, one degree of freedom


@dataclass(frozen=True)
class Reliability:
    """Scores and hits of many answers, in BINS bins of equal width."""

    counts: tuple[int, ...]
    """Answers whose score is in the bin."""
    scores: tuple[float, ...]
    """Their mean score, 0.0 to 1.0; 0.0 in an empty bin."""
    hits: tuple[float, ...]
    """The share of them that is right."""

    @property
    def error(self) -> float:
        """Expected calibration error: |score - hits|, weighted by the counts; 0.0 is perfect."""
        gaps = np.abs(np.subtract(self.scores, self.hits)) * self.counts
        return float(gaps.sum() / max(1, sum(self.counts)))


def reliability(scores: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Sort answers into bins by the score of their best class."""
    bins = np.minimum((np.asarray(scores, float) * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    means, hits = (
        np.bincount(bins, np.asarray(values, float), BINS) / np.maximum(1, counts)
        for values in (scores, right)
    )
    return Reliability(tuple(counts.tolist()), tuple(means.tolist()), tuple(hits.tolist()))


def fit_temperature(logits: np.ndarray, truth: np.ndarray, *, smoothing: float = 0.0) -> float:
    """Return the temperature that fits the truth best.

    It has the least negative log-likelihood (Guo et al., "On Calibration of Modern Neural
    Networks", 2017). It does not change the order of classes.

    Args:
        logits: float (pictures, classes).
        truth: int (pictures,), class indices.
        smoothing: share of the truth that is spread over all classes: where every answer is right, the
            best temperature without it is the smallest.

    """
    surprise = _surprise(logits, truth, smoothing)
    # Convex in 1 / temperature, so ternary search finds its minimum.
    low, high = np.log(_RANGE)
    while high - low > 1e-3:
        third = (high - low) / 3
        if surprise(low + third) < surprise(high - third):
            high -= third
        else:
            low += third
    return float(np.exp((low + high) / 2))


def temperature_interval(
    logits: np.ndarray, truth: np.ndarray, fitted: float
) -> tuple[float, float]:
    """Return the 95 % interval of a fitted temperature, by the likelihood ratio.

    Args:
        logits: float (pictures, classes), as it was fitted to.
        truth: int (pictures,), class indices.
        fitted: the temperature.

    """
    surprise = _surprise(logits, truth, 0.0)
    center = float(np.log(fitted))
    allowed = surprise(center) + _HALF_CHI_SQUARE / min(len(truth), _MOST)
    ends = []
    for end in np.log(_RANGE):
        inside, outside = center, float(end)
        if surprise(outside) > allowed:
            while abs(outside - inside) > 1e-3:
                middle = (inside + outside) / 2
                inside, outside = (
                    (middle, outside) if surprise(middle) <= allowed else (inside, middle)
                )
        ends.append(float(np.exp(outside)))
    return ends[0], ends[1]


def _surprise(logits: np.ndarray, truth: np.ndarray, smoothing: float) -> Callable[[float], float]:
    """Return the mean negative log-likelihood as a function of the temperature's logarithm."""
    step = -(-len(logits) // _MOST)
    logits, truth = logits[::step].astype(np.float64), truth[::step]
    logits -= logits.max(axis=1, keepdims=True)
    picked = (1 - smoothing) * logits[np.arange(len(truth)), truth]
    picked += smoothing * logits.mean(axis=1)

    def surprise(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        likelihood = picked / np.exp(log_temperature) - np.log(np.exp(scaled).sum(axis=1))
        return float(-likelihood.mean())

    return surprise
