"""What happened to one camera's frames since it was last asked: rates, latencies, losses."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from repghost_ros.stream.pipeline import Answer, Stream

_COUNTS = ("received", "answered", "refused", "failed", "dropped", "skipped")


@dataclass(frozen=True)
class Latency:
    """Median and 99th percentile in seconds; NaN where there was no frame."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Report:
    """One period of one camera. Counts are of the period, rates in frames a second."""

    seconds: float
    received: int
    answered: int
    refused: int
    failed: int
    dropped: int
    skipped: int
    convert: Latency
    infer: Latency
    end_to_end: Latency
    """From the message's arrival in this process to its answer's publication."""
    idle: float
    """Seconds since the last frame came, or since the start."""
    last_error: str
    """The latest error of all time, or empty."""

    @property
    def input_rate(self) -> float:
        """Frames that came, per second."""
        return self.received / self.seconds

    @property
    def output_rate(self) -> float:
        """Frames that were answered, per second."""
        return self.answered / self.seconds


@dataclass
class _Period:
    counts: tuple[int, ...]
    began: float = field(default_factory=time.monotonic)
    convert: list[float] = field(default_factory=list)
    infer: list[float] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)


class Monitor:
    """Counts one stream's frames and times its answers."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._period = _Period(self._counts())
        self._last_frame = time.monotonic()
        self._last_error = ""

    def _counts(self) -> tuple[int, ...]:
        return tuple(getattr(self._stream, name) for name in _COUNTS)

    def record(self, answer: Answer) -> None:
        """Note an answer that was just published, or an error."""
        period = self._period
        if answer.error is not None:
            self._last_error = str(answer.error)
            return
        period.convert.append(answer.converted - answer.started)
        period.infer.append(answer.inferred - answer.converted)
        period.end_to_end.append(time.monotonic() - answer.received)

    def report(self) -> Report:
        """The period that ends now; the next one begins."""
        now = time.monotonic()
        counts = self._counts()
        period, self._period = self._period, _Period(counts, now)
        counted = dict(zip(_COUNTS, np.subtract(counts, period.counts).tolist(), strict=True))
        if counted["received"]:
            self._last_frame = now
        return Report(
            seconds=max(now - period.began, 1e-9),
            **counted,
            convert=_latency(period.convert),
            infer=_latency(period.infer),
            end_to_end=_latency(period.end_to_end),
            idle=now - self._last_frame,
            last_error=self._last_error,
        )


def _latency(seconds: list[float]) -> Latency:
    if not seconds:
        return Latency(float("nan"), float("nan"))
    p50, p99 = np.percentile(seconds, (50, 99)).tolist()
    return Latency(p50, p99)
