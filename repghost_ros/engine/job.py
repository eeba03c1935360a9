# SPDX-License-Identifier: Apache-2.0
"""A frame on its way through a model, and its outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Generic, TypeVar

import numpy as np

import repghost_ros.native as native
from repghost_ros.engine.results import Reporting, Result
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.view import View

Message = TypeVar("Message")


class Outcome(Enum):
    """How a frame ended; the values are the field names of `Counts`."""

    ANSWERED = "answered"
    """Its results were delivered."""
    REFUSED = "refused"
    """It could not be read or converted."""
    FAILED = "failed"
    """The backend failed on it, or its results could not be delivered."""
    DROPPED = "dropped"
    """It made way for a newer one."""
    SKIPPED = "skipped"
    """It was not wanted and was passed over: it came too soon, or the node is disabled."""


@dataclass
class Job(Generic[Message]):
    """One frame: the request to the model, and the answer.

    Times are seconds on the monotonic clock, None until that step is done.
    """

    message: Message
    """What the frame is read from: a ROS message, a recorded one, a file."""
    view: View = field(default_factory=View)
    reporting: Reporting = field(default_factory=Reporting)
    received: float = field(default_factory=time.monotonic)
    started: float | None = None
    converted: float | None = None
    inferred: float | None = None
    """Of all frames of a batch together."""
    frame: Frame | None = None
    """What of the message the model saw, before it was scaled."""
    model: Any = None
    """The Model that answered."""
    named: native.Frame | None = None
    """The best classes, where the compiled helper has found them."""
    _logits: np.ndarray | None = None
    _results: tuple[Result, ...] = ()
    outcome: Outcome | None = None
    """None while the frame is in flight."""
    error: Exception | None = None
    """Why it was refused or failed."""

    @property
    def logits(self) -> np.ndarray | None:
        """float32 (classes,), as the model gave them; None without an answer."""
        if self._logits is None and self.named is not None:
            self._logits = self.named.read_logits()
        return self._logits

    @logits.setter
    def logits(self, logits: np.ndarray) -> None:
        self._logits = logits

    @property
    def results(self) -> tuple[Result, ...]:
        """Best first; may be empty where no class reaches the threshold."""
        if not self._results and self.named is not None:
            self._results = self.reporting.named(self.named.best(), self.model.labels)
        return self._results

    @results.setter
    def results(self, results: tuple[Result, ...]) -> None:
        self._logits, self._results, self.named = self.logits, results, None

    def end(self, outcome: Outcome, error: Exception | None = None) -> None:
        """Record the frame's outcome."""
        # The outcome last: whoever sees one may read the rest.
        self.error = error
        self.outcome = outcome


@dataclass(frozen=True)
class Counts:
    """Frames of one camera; `received` is the sum of the others and of those in flight."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    dropped: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, n) + getattr(other, n) for n in COUNT_NAMES))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, n) - getattr(other, n) for n in COUNT_NAMES))

    @property
    def in_flight(self) -> int:
        """Frames waiting or in flight."""
        return self.received - sum(getattr(self, outcome.value) for outcome in Outcome)


COUNT_NAMES = tuple(each.name for each in fields(Counts))
