# SPDX-License-Identifier: Apache-2.0
"""Submit frames to a pipeline and collect their outcomes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from helpers.waiting import WAIT
from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.pipeline import Stream
from repghost_ros.engine.request import Request
from repghost_ros.errors import FrameError
from repghost_ros.vision.frame import Frame, from_array


class Inbox:
    """Collects the outcomes of frames; `wait(n)` until n have come."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome[Request[Any]]] = []
        self.came = threading.Semaphore(0)

    def __call__(self, _: Any, outcomes: Sequence[Outcome[Request[Any]]]) -> None:
        self.outcomes += outcomes
        for _ in outcomes:
            self.came.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.came.acquire(timeout=WAIT)

    @property
    def kinds(self) -> list[str]:
        return [outcome.kind for outcome in self.outcomes]

    @property
    def values(self) -> list[float]:
        return [float(each.logits[0]) for each in self.outcomes if isinstance(each, Answered)]

    @property
    def errors(self) -> list[type]:
        return [type(getattr(each, "error", None)) for each in self.outcomes]


def read(message: Any) -> Frame:
    """Make a gray picture of that level, which it keeps in full-range NV12."""
    if message == "bad":
        raise FrameError("bad frame")
    return from_array(np.full((2, 2), message, np.uint8))


def submit(stream: Stream[Any], message: Any, read: Any = read, **how: Any) -> None:
    """Submit a frame and wake a worker for it."""
    stream.submit([Request(message, read, **how)])
    stream._shared.bell.ring()
