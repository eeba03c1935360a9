"""Say what is installed, which backend `auto` picks and why, and what to do about each problem."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from repghost_ros.cli.common import add_json, print_json
from repghost_ros.doctor import PROBLEM, examine

HELP = "examine this machine and say what to do about problems"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost doctor`."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the findings; 1 if there is a problem."""
    findings = examine()
    if options.json:
        print_json([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            print(f"{finding.status:>7}  {finding.subject:<{width}}  {finding.detail}")
            if finding.advice:
                print(f"{'':>7}  {'':<{width}}  -> {finding.advice}")
    return int(any(finding.status == PROBLEM for finding in findings))
