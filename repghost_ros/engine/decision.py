# SPDX-License-Identifier: Apache-2.0
"""Smooth scores, detect lasting changes of the top class: what robots act on must not flicker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repghost_ros.engine.model import Answered, AnyRequest, Model

_GAP = 1.0
"""Seconds between two stamps beyond which the second frame shows another scene."""


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
