# SPDX-License-Identifier: Apache-2.0
"""Smooth scores, detect lasting changes of the top class: what robots act on must not flicker."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np

from repghost_ros.engine.model import Answered, AnyRequest, Model

_GAP = 1.0
"""Seconds between two stamps beyond which the second frame shows another scene."""
_MOST_OBJECTS = 256
"""Beyond that the object seen longest ago is forgotten."""


class Smoothing:
    """Exponential mean of one camera's probabilities, over frames in order."""

    def __init__(self) -> None:
        self._mean: np.ndarray | None = None
        self._model: Model | None = None
        self._stamp = 0.0

    def update(
        self, answered: Answered[AnyRequest], stamp: float, weight: float
    ) -> Answered[AnyRequest]:
        """Return the same answer with the results of the mean up to it.

        The mean begins anew with another model, and where stamps go back or leave a gap of a second.

        Args:
            answered: a frame's answer.
            stamp: the frame's, in seconds.
            weight: of the mean before this frame, 0.0 to below 1.0.

        """
        model, reporting = answered.model, answered.request.reporting
        scores = reporting.scores(answered.logits, model.activation)
        follows = model is self._model and 0.0 <= stamp - self._stamp <= _GAP
        if follows and self._mean is not None:
            scores = weight * self._mean + (1.0 - weight) * scores
        self._mean, self._model, self._stamp = scores, model, stamp
        best = reporting.judged(reporting.best_of(scores, model.labels), model.own)
        return replace(answered, best=best)


class ChangeDetector:
    """Tells when a new top class has lasted for some time."""

    def __init__(self) -> None:
        self._known: str | None = None
        self._next: str | None = None
        self._since = 0.0

    def update(self, top: str | None, stamp: float, hold: float) -> bool:
        """Return whether this frame confirms a new top class.

        Args:
            top: the best class, None if none was reported.
            stamp: the frame's, in seconds.
            hold: seconds for which a new top class must last.

        """
        if top == self._known:
            self._next = None
            return False
        if top != self._next or stamp < self._since:
            self._next, self._since = top, stamp
        if stamp - self._since < hold:
            return False
        self._known, self._next = top, None
        return top is not None


class Objects:
    """A camera's objects by their detector's ids, each with its own mean and its own lasting class."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Smoothing, ChangeDetector]] = OrderedDict()

    def decide(
        self, name: str, answered: Answered[AnyRequest], stamp: float, weight: float, hold: float
    ) -> tuple[Answered[AnyRequest], bool]:
        """Return a box's answer, smoothed, and whether its object has lastingly changed its class.

        Args:
            name: the object's id; a box without one stays as it is.
            answered: the box's answer.
            stamp: its array's, in seconds.
            weight: of earlier answers, see `Smoothing.update`; 0.0: not smoothed.
            hold: seconds for which a new class must last; 0.0: never reported.

        """
        if not name or not (weight or hold):
            return answered, False
        smoothing, change = known = self._known.pop(name, None) or (Smoothing(), ChangeDetector())
        self._known[name] = known
        if len(self._known) > _MOST_OBJECTS:
            self._known.popitem(last=False)
        if weight:
            answered = smoothing.update(answered, stamp, weight)
        top = answered.results[0].class_id if answered.results else None
        return answered, bool(hold) and change.update(top, stamp, hold)
