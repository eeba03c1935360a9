# SPDX-License-Identifier: Apache-2.0
"""One camera's statistics since the last report: rates, latencies, losses."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repghost_ros.backends.base import Times
from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.request import Counts


@dataclass(frozen=True)
class Latency:
    """Median and 99th percentile in seconds; NaN if there was no frame."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Return the percentiles of these durations."""
        if not seconds:
            return cls(float("nan"), float("nan"))
        p50, p99 = np.percentile(seconds, (50, 99)).tolist()
        return cls(p50, p99)


@dataclass(frozen=True)
class CameraReport:
    """One period of one camera; rates are frames a second."""

    seconds: float
    counts: Counts
    """Of the period."""
    convert: Latency
    infer: Latency
    end_to_end: Latency
    """From the message's arrival in this process to its answer's publication."""
    idle: float
    """Seconds since the last frame came, since the start, or since frames have been wanted again."""
    last_error: str
    """The latest error of all time, or empty."""

    @property
    def input_rate(self) -> float:
        """Frames received per second."""
        return self.counts.received / self.seconds

    @property
    def output_rate(self) -> float:
        """Frames answered per second."""
        return self.counts.answered / self.seconds


@dataclass
class _Period:
    counts: Counts
    began: float = field(default_factory=time.monotonic)
    answers: list[tuple[float, Times, float]] = field(default_factory=list)
    """When each frame was received, worked on and published."""


class Monitor:
    """Times one camera's answers; the counts are passed in when a report is made."""

    def __init__(self) -> None:
        self._period = _Period(Counts())
        self._last_frame = time.monotonic()
        self._last_error = ""

    def record(self, outcome: Outcome[Any]) -> None:
        """Record how a frame ended; an answered one was just published."""
        if not isinstance(outcome, Answered):
            self._last_error = str(outcome.error)
            return
        answer = (outcome.request.received, outcome.times, time.monotonic())
        self._period.answers.append(answer)

    def report(self, counts: Counts, *, paused: bool = False) -> CameraReport:
        """End the period and return it; see `end_period`."""
        period = self._period
        self.end_period(counts, paused=paused)
        now = self._period.began
        times = [times for _, times, _ in period.answers]
        return CameraReport(
            seconds=max(now - period.began, 1e-9),
            counts=counts - period.counts,
            convert=Latency.of([each.converted - each.started for each in times]),
            infer=Latency.of([each.inferred - each.converted for each in times]),
            end_to_end=Latency.of([end - received for received, _, end in period.answers]),
            idle=now - self._last_frame,
            last_error=self._last_error,
        )

    def end_period(self, counts: Counts, *, paused: bool = False) -> None:
        """Begin the next period.

        Args:
            counts: of all frames so far.
            paused: whether no frame is wanted now.

        """
        now = time.monotonic()
        if counts.received != self._period.counts.received or paused:
            self._last_frame = now
        self._period = _Period(counts, now)
