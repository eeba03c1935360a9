# SPDX-License-Identifier: Apache-2.0
"""A frame that is to be classified, and the counts of how frames ended."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from repghost_ros.backends.base import Ranking, Read
from repghost_ros.engine.results import Reporting
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import from_serialized
from repghost_ros.vision.view import View

Message = TypeVar("Message")
Numbers = TypeVar("Numbers")


@dataclass(frozen=True, eq=False)
class Request(Generic[Message]):
    """One frame: what it is read from, and what is wanted of it."""

    message: Message
    """A ROS message, a recorded one, a file, a picture."""
    read: Read
    """Makes a frame of the message; whatever it raises refuses the frame."""
    view: View = View()
    reporting: Reporting = Reporting()
    received: float = field(default_factory=time.monotonic)
    """Seconds on the monotonic clock."""

    @property
    def serialized(self) -> Serialized | None:
        """The message in memory, where the compiled helper may read it."""
        message: Any = self.message
        return message if self.read is from_serialized and message.memory is not None else None

    @property
    def ranking(self) -> Ranking | None:
        """The report that a backend may rank itself."""
        return self.reporting.ranking


def combined(one: Numbers, other: Numbers, combine: Callable[[int, int], int]) -> Numbers:
    """Return the sum, or such, of two dataclasses of numbers, field by field."""
    names = [entry.name for entry in fields(one)]  # type: ignore[arg-type]  # a dataclass
    return type(one)(*(combine(getattr(one, name), getattr(other, name)) for name in names))


@dataclass(frozen=True)
class Counts:
    """Frames of one camera; `received` is the sum of the others and of those in flight."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    dropped: int = 0
    """They made way for newer ones."""
    skipped: int = 0
    """They were not wanted: they came too soon, or the node is disabled."""

    def __add__(self, other: Counts) -> Counts:
        return combined(self, other, operator.add)

    def __sub__(self, other: Counts) -> Counts:
        return combined(self, other, operator.sub)

    @property
    def in_flight(self) -> int:
        """Frames waiting or in flight."""
        return self.received - sum(getattr(self, name) for name in COUNT_NAMES[1:])


COUNT_NAMES = tuple(entry.name for entry in fields(Counts))
