# SPDX-License-Identifier: Apache-2.0
"""Logits -> results: the best classes, their probabilities and names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache
from math import isfinite
from typing import Literal, get_args

import numpy as np

from repghost_ros.backends.base import Activation, Ranking
from repghost_ros.errors import BackendError, ParameterError
from repghost_ros.zoo.own import Own

UNKNOWN = "unknown"
"""The answer for what is none of a model's classes."""
UNKNOWN_INDEX = -1
"""Its index in what `Reporting.best` returns."""
UnknownAs = Literal["label", "none", "best"]
UNKNOWN_AS: tuple[UnknownAs, ...] = get_args(UnknownAs)
"""How `unknown` can be reported."""
ClassId = Literal["label", "index"]
CLASS_IDS: tuple[ClassId, ...] = get_args(ClassId)
"""What a result's `class_id` can be."""


@dataclass(frozen=True, slots=True)
class Result:
    """One class and its probability."""

    class_id: str
    """Name of the class, or its index as text."""
    score: float
    """Probability, 0.0 to 1.0."""
    index: int | None = field(default=None, compare=False)
    """Class index, 0 to classes - 1; None where only the name was recorded."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of float (classes,) logits: float64 (classes,) that sum to 1.

    Raises:
        BackendError: a logit is NaN or infinite: the model or device is broken.

    """
    # In float64 no sum of finite float32 overflows, and NaN and infinities stay in it.
    values = logits.astype(np.float64)
    if not isfinite(np.add.reduce(values)):
        raise BackendError(
            "the model answered NaN or infinite logits: the model file may be corrupt"
        )
    # Shifting by the maximum keeps exp() from overflowing.
    values -= np.maximum.reduce(values)
    np.exp(values, out=values)
    values /= np.add.reduce(values)
    return values


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of each of float (classes,) logits, as float64 (classes,).

    Raises:
        BackendError: a logit is NaN or infinite: the model or device is broken.

    """
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        raise BackendError(
            "the model answered NaN or infinite logits: the model file may be corrupt"
        )
    # The hyperbolic tangent overflows nowhere.
    scores: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * values))
    return scores


def probabilities(
    outputs: np.ndarray, activation: Activation = "softmax", temperature: float = 1.0
) -> np.ndarray:
    """Return the probabilities of a model's float (classes,) outputs, as float64 (classes,).

    Args:
        outputs: logits, or with `none` and `independent` probabilities.
        activation: how they become scores, see BackendOptions; not `auto`.
        temperature: divides the logits, also those that probabilities were made of.

    Raises:
        BackendError: an output is NaN or infinite, or should be a probability and is not.

    """
    if activation == "softmax":
        return softmax(outputs if temperature == 1.0 else outputs / temperature)
    if activation == "sigmoid":
        return sigmoid(outputs / temperature)
    # What int8 makes of 0 and 1 may lie a step outside.
    if not (np.isfinite(outputs).all() and outputs.min() > -0.02 and outputs.max() < 1.02):
        raise BackendError(
            f"the model's outputs are not probabilities, they are from {outputs.min():g} to "
            f"{outputs.max():g}: set activation to softmax or sigmoid"
        )
    scores = outputs.astype(np.float64).clip(0.0, 1.0)
    if temperature == 1.0:
        return scores
    if activation == "none":
        return softmax(_log(scores) / temperature)
    return sigmoid((_log(scores) - _log(1.0 - scores)) / temperature)


def log_probabilities(outputs: np.ndarray, activation: Activation = "softmax") -> np.ndarray:
    """Return their natural logarithms, at least that of the smallest float; see `probabilities`."""
    return _log(probabilities(outputs, activation))


def _log(scores: np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
    return logarithms


def decision(scores: np.ndarray) -> int:
    """Return the best class of float (classes,) probabilities; of one: 1 from 0.5 on, else 0."""
    return int(scores[0] >= 0.5) if scores.size == 1 else int(scores.argmax())


def top_k(
    outputs: np.ndarray, k: int, threshold: float = 0.0, activation: Activation = "softmax"
) -> list[tuple[int, float]]:
    """Index and probability of the k most probable classes, best first.

    Args:
        outputs: float (classes,).
        k: maximum number of classes.
        threshold: least probability to report, 0.0 to 1.0.
        activation: as for `probabilities`.

    Raises:
        BackendError: an output is NaN or infinite, or no probability.

    """
    return _best(probabilities(outputs, activation), k, threshold)


def _best(scores: np.ndarray, k: int, threshold: float) -> list[tuple[int, float]]:
    """Return what `top_k` returns for these scores, which are overwritten."""
    best: list[tuple[int, float]] = []
    # A maximum after the other: for a few of a thousand that is a third of a sort's time. Where two
    # classes tie it is the lower index.
    for _ in range(min(k, scores.size)):
        index = int(scores.argmax())
        score = float(scores[index])
        if score < threshold:
            break
        best.append((index, score))
        scores[index] = -1.0
    return best


@dataclass(frozen=True)
class Reporting:
    """The choice of classes to report, and the form of their names.

    Raises:
        ParameterError: a value is out of bounds.

    """

    top_k: int = 5
    """How many classes at most."""
    score_threshold: float = 0.0
    """Least probability of a reported class, 0.0 to 1.0."""
    class_id: ClassId = "label"
    temperature: float = 1.0
    """What logits are divided by: above 1 scores are less sure; `repghost eval --report` fits it."""
    class_allow: tuple[str, ...] = ()
    """Names of the only classes to report; empty: all."""
    class_deny: tuple[str, ...] = ()
    """Names of classes not to report, allowed or not."""
    unknown: UnknownAs = "label"
    """Report where a taught model knows no class: the class `unknown`, none, or the best."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ParameterError(f"top_k cannot be {self.top_k}: report at least one class")
        if not 0.0 <= self.score_threshold <= 1.0:
            raise ParameterError(
                f"score_threshold cannot be {self.score_threshold}: scores are from 0 to 1"
            )
        if not 0.0 < self.temperature < float("inf"):
            raise ParameterError(
                f"temperature cannot be {self.temperature}: logits are divided by it, so give a "
                "number above zero"
            )
        if self.unknown not in UNKNOWN_AS:
            raise ParameterError(
                f"unknown cannot be '{self.unknown}': choose one of {', '.join(UNKNOWN_AS)}"
            )
        if self.class_id not in CLASS_IDS:
            raise ParameterError(
                f"class_id cannot be '{self.class_id}': choose one of {', '.join(CLASS_IDS)}"
            )

    def results(
        self, outputs: np.ndarray, labels: Sequence[str], activation: Activation = "softmax"
    ) -> tuple[Result, ...]:
        """Return the reported classes, best first; arguments and errors are those of `best`."""
        return self.named(self.best(outputs, labels, activation), labels)

    def best(
        self, outputs: np.ndarray, labels: Sequence[str], activation: Activation = "softmax"
    ) -> list[tuple[int, float]]:
        """Return the index and probability of the reported classes, best first.

        Args:
            outputs: float (classes,).
            labels: class names in index order.
            activation: as for `probabilities`.

        Raises:
            BackendError: an output is NaN or infinite, or no probability.
            ParameterError: see `check`.

        """
        return self.best_of(self.scores(outputs, activation), labels)

    def scores(self, outputs: np.ndarray, activation: Activation = "softmax") -> np.ndarray:
        """Probabilities of all classes at the temperature, as float64 (classes,).

        Args:
            outputs: float (classes,).
            activation: as for `probabilities`.

        Raises:
            BackendError: an output is NaN or infinite, or no probability.

        """
        return probabilities(outputs, activation, self.temperature)

    def best_of(self, scores: np.ndarray, labels: Sequence[str]) -> list[tuple[int, float]]:
        """Return the index and probability of the reported classes, best first.

        Args:
            scores: float64 (classes,) probabilities, which stay as they are.
            labels: class names in index order.

        Raises:
            ParameterError: see `check`.

        """
        scores = scores.copy()
        if self.class_allow or self.class_deny:
            scores[_hidden(self.class_allow, self.class_deny, tuple(labels))] = -1.0
        return _best(scores, self.top_k, self.score_threshold)

    def named(self, best: Iterable[tuple[int, float]], labels: Sequence[str]) -> tuple[Result, ...]:
        """Results of the index and probability of classes, in their order.

        Args:
            best: the classes to report.
            labels: class names in index order.

        """
        by_label = self.class_id == "label"
        return tuple(
            Result(labels[index] if by_label else str(index), score, index)
            if index != UNKNOWN_INDEX
            else Result(UNKNOWN, score)
            for index, score in best
        )

    def judged(self, best: Iterable[tuple[int, float]], own: Own) -> Iterable[tuple[int, float]]:
        """Replace the best classes by `unknown`, or by none, where a taught model knows no class.

        That is where the best is the class `nothing`, or its score is below the model's threshold. The
        score of `unknown` is the share that the best other class leaves.

        Args:
            best: index and probability of the reported classes, best first.
            own: what the model's file records.

        """
        if own.unknown_below is None or self.unknown == "best":
            return best
        found = list(best)
        if not found or (found[0][0] != own.nothing and found[0][1] >= own.unknown_below):
            return best
        if self.unknown == "none":
            return ()
        known = next((score for index, score in found if index != own.nothing), 0.0)
        return ((UNKNOWN_INDEX, 1.0 - known),)

    @cached_property
    def ranking(self) -> Ranking | None:
        """The rule of the report, if that is just the best of the model's own probabilities."""
        plain = self.temperature == 1.0 and not (self.class_allow or self.class_deny)
        return Ranking(self.top_k, self.score_threshold) if plain else None

    def check(self, labels: Sequence[str]) -> None:
        """Check that `class_allow` and `class_deny` fit a model.

        Args:
            labels: its class names.

        Raises:
            ParameterError: the model has no class of a name, or no class would be left.

        """
        if self.class_allow or self.class_deny:
            _hidden(self.class_allow, self.class_deny, tuple(labels))


@lru_cache(8)
def _hidden(allow: tuple[str, ...], deny: tuple[str, ...], labels: tuple[str, ...]) -> np.ndarray:
    """Bool (classes,): which are not reported; see `Reporting.check` for the errors."""
    for name in (*allow, *deny):
        if name not in labels:
            close = get_close_matches(name, labels, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"its first is '{labels[0]}'"
            raise ParameterError(f"the model has no class '{name}': {hint}")
    hidden = np.isin(labels, deny)
    if allow:
        hidden |= ~np.isin(labels, allow)
    if hidden.all():
        raise ParameterError("class_allow and class_deny leave no class to report")
    return hidden
