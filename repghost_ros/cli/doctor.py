# SPDX-License-Identifier: Apache-2.0
"""Say what is installed, which backend `auto` picks and why, and what to do about each problem."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from repghost_ros.cli.report import Table
from repghost_ros.runs.benchmark import Timing
from repghost_ros.runs.board_report import cameras, frequencies, report
from repghost_ros.runs.doctor import PROBLEM, Finding, examine

HELP = "check this machine and say how to solve problems"


@dataclass(frozen=True)
class DoctorReport:
    """The findings."""

    findings: list[Finding]
    timings: list[Timing] = field(default_factory=list)
    """Of a board report: measured here, and published."""

    @property
    def failed(self) -> bool:
        """True if there is a problem."""
        return any(finding.status == PROBLEM for finding in self.findings)

    def text(self) -> Iterator[str | Table]:
        """One line per finding, with the remedy below it."""
        width = max(len(finding.subject) for finding in self.findings)
        for finding in self.findings:
            yield f"{finding.status:>7}  {finding.subject:<{width}}  {finding.detail}"
            if finding.advice:
                yield f"{'':>7}  {'':<{width}}  -> {finding.advice}"
        if self.timings:
            head = ("model", "source", "runtime", "threads", "ms", "p99 ms", "FPS")
            yield Table(head, [_row(timing) for timing in self.timings])

    def as_json(self) -> dict[str, Any]:
        """One dict per finding."""
        report: dict[str, Any] = {"results": [asdict(finding) for finding in self.findings]}
        if self.timings:
            report["timings"] = [asdict(timing) for timing in self.timings]
        return report


def _row(timing: Timing) -> tuple[Any, ...]:
    figures = (timing.latency_ms, timing.p99_ms, timing.fps)
    return (
        *(timing.model, timing.source, timing.backend, timing.threads),
        *(_shown(figure) for figure in figures),
    )


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost doctor`."""
    parser.add_argument(
        "--board-report",
        action="store_true",
        help="also test the device: self-test and timings, to be sent to the developers",
    )


def run(options: argparse.Namespace) -> DoctorReport:
    """Examine this machine."""
    findings = examine()
    if not options.board_report:
        return DoctorReport(findings)
    board = report([*frequencies(), *cameras()])
    return DoctorReport(findings + board.findings, board.timings)
