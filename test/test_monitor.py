# SPDX-License-Identifier: Apache-2.0
"""Reports and the diagnostics made of them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from repghost_ros.backends.base import Refused, Times
from repghost_ros.engine.model import Answered
from repghost_ros.engine.monitor import CameraReport, Latency, Monitor
from repghost_ros.engine.request import Counts, Request
from repghost_ros.errors import FrameError
from repghost_ros.ros.diagnostics import Thresholds, camera_status
from repghost_ros.vision.frame import from_array

GOOD = CameraReport(
    seconds=2.0,
    counts=Counts(received=60, answered=60),
    convert=Latency(0.001, 0.002),
    infer=Latency(0.003, 0.004),
    end_to_end=Latency(0.005, 0.010),
    idle=0.01,
    last_error="",
)
THRESHOLDS = Thresholds(min_rate=20.0, max_latency=0.050, stale_after=2.0)


@pytest.mark.parametrize(
    ("changes", "level", "message"),
    [
        ({}, DiagnosticStatus.OK, "classifying"),
        ({"idle": 3.0}, DiagnosticStatus.STALE, "no frame for 3.0 s"),
        (
            {"counts": Counts(60, 59, failed=1), "last_error": "it broke"},
            DiagnosticStatus.ERROR,
            "it broke",
        ),
        (
            {"counts": Counts(60, 59, refused=1), "last_error": "bad step"},
            DiagnosticStatus.WARN,
            "bad step",
        ),
        (
            {"counts": Counts(60, 30)},
            DiagnosticStatus.WARN,
            "15.0 answers per second, min_rate is 20",
        ),
        ({"end_to_end": Latency(0.01, 0.06)}, DiagnosticStatus.WARN, "60.0 ms, wanted 50"),
        ({"counts": Counts(64, 60, dropped=4)}, DiagnosticStatus.WARN, "4 frames made way"),
    ],
)
def test_levels(changes: dict[str, Any], level: bytes, message: str) -> None:
    status = camera_status("repghost: image", "libdnn", replace(GOOD, **changes), THRESHOLDS)
    assert status.level == level
    assert message in status.message


def test_values_have_names_and_units() -> None:
    status = camera_status("repghost: image", "libdnn", GOOD, THRESHOLDS)
    values = {value.key: value.value for value in status.values}
    assert values["input rate (Hz)"] == values["output rate (Hz)"] == "30.00"
    assert values["end-to-end latency p99 (ms)"] == "10.00"
    assert (status.name, status.hardware_id) == ("repghost: image", "libdnn")


def test_a_report_is_of_its_period_alone() -> None:
    monitor = Monitor()
    model: Any = None
    request = Request(None, from_array)
    answered = Answered(request, model, [], np.zeros(1), Times(1.0, 1.5, 3.5), None)
    for outcome in (answered, answered, Refused(request, FrameError("bad step"))):
        monitor.record(outcome)
    counts = Counts(received=3, answered=2, refused=1)
    report = monitor.report(counts)
    assert report.counts == counts
    assert (report.convert, report.infer) == (Latency(0.5, 0.5), Latency(2.0, 2.0))
    assert report.last_error == "bad step"
    empty = monitor.report(counts)
    assert empty.counts == Counts()
    assert np.isnan(empty.infer.p50)
    assert empty.last_error == "bad step"


def test_a_period_ends_without_a_report() -> None:
    monitor = Monitor()
    model: Any = None
    request = Request(None, from_array)
    monitor.record(Answered(request, model, [], np.zeros(1), Times(1.0, 1.5, 3.5), None))
    monitor.end_period(Counts(received=1, answered=1))
    report = monitor.report(Counts(received=3, answered=1, dropped=2))
    assert report.counts == Counts(received=2, dropped=2)
    assert np.isnan(report.infer.p50)


def test_counts_balance() -> None:
    counts = Counts(received=10, answered=4, refused=1, failed=1, dropped=1, skipped=1)
    assert counts.in_flight == 2
    assert counts - counts == Counts()
    assert counts + Counts() == counts


def test_a_pause_is_not_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monitor = Monitor()
    now = 107.0
    assert monitor.report(Counts()).idle == 7.0
    assert monitor.report(Counts(), paused=True).idle == 0.0
    now = 109.0
    assert monitor.report(Counts()).idle == 2.0  # counted from the end of the pause
