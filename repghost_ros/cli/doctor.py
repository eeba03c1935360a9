"""Say what is installed, which backend `auto` picks and why, and what to do about each problem."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from repghost_ros.doctor import PROBLEM, Finding, examine

HELP = "examine this machine and say what to do about problems"


@dataclass(frozen=True)
class DoctorReport:
    """The findings."""

    findings: list[Finding]

    @property
    def failed(self) -> bool:
        """Whether there is a problem."""
        return any(finding.status == PROBLEM for finding in self.findings)

    def text(self) -> Iterator[str]:
        """A line a finding, and one below it with what to do."""
        width = max(len(finding.subject) for finding in self.findings)
        for finding in self.findings:
            yield f"{finding.status:>7}  {finding.subject:<{width}}  {finding.detail}"
            if finding.advice:
                yield f"{'':>7}  {'':<{width}}  -> {finding.advice}"

    def as_json(self) -> dict[str, Any]:
        """A dict a finding."""
        return {"results": [asdict(finding) for finding in self.findings]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> DoctorReport:
    """Examine this machine."""
    return DoctorReport(examine())
