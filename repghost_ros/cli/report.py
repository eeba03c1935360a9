"""What a command reports: `main` prints it, as text or as JSON.

A command does not print. Its `run` returns a Report; `main` calls either `text` or `as_json`, once, and
then asks whether anything failed. A command whose results come one by one does its work in there, so
that each line is on the terminal as soon as it is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SCHEMA = 1
"""Version of the JSON that `repghost COMMAND --json` prints; rises when a field changes its meaning."""


@dataclass(frozen=True)
class Table:
    """Rows under a head; None is shown as a dash."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __str__(self) -> str:
        """Columns as wide as they must be, numbers to the right."""
        cells = [["-" if cell is None else str(cell) for cell in row] for row in self.rows]
        columns = list(zip(self.head, *cells, strict=True))
        widths = [max(map(len, column)) for column in columns]
        numeric = [all(c[:1].isdigit() or c == "-" for c in column[1:]) for column in columns]
        lines = (
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            )
            for row in (self.head, *cells)
        )
        return "\n".join(line.rstrip() for line in lines)


class Report(Protocol):
    """The outcome of one command."""

    @property
    def failed(self) -> bool:
        """Whether the exit code is 1; known once `text` or `as_json` has ended."""

    def text(self) -> Iterator[str | Table]:
        """What a person reads on stdout, piece by piece."""

    def as_json(self) -> dict[str, Any]:
        """What a program reads: "results", a list, and whatever else the command says about them."""


class Interrupted(KeyboardInterrupt):
    """Ends a command that was interrupted and has something to report: the exit code is 130."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def print_report(command: str, report: Report, *, as_json: bool) -> None:
    """Print a report on stdout, JSON in the envelope that all commands share."""
    if as_json:
        envelope = {"schema": SCHEMA, "command": command, **report.as_json()}
        print(json.dumps(envelope, indent=1, ensure_ascii=False))
        return
    for piece in report.text():
        print(piece, flush=True)
