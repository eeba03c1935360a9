# SPDX-License-Identifier: Apache-2.0
"""A command's report, which the program prints as text or JSON.

A command does not print: its `run` returns a Report, and it logs what goes wrong meanwhile. The
program prints the log on stderr, calls either `text` or `as_json`, once, and then asks whether anything
failed. A command whose results arrive one by one does its work in these methods, so that a line is
printed as soon as it is known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from repghost_ros.errors import without_passwords

SCHEMA = 2
"""Version of the JSON that `repghost COMMAND --json` prints; rises when a field changes its meaning."""


@dataclass(frozen=True)
class Table:
    """Rows under a header; None is shown as a dash."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def cells(self) -> list[list[str]]:
        """Yield the rows as text."""
        return [["-" if cell is None else str(cell) for cell in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Return the columns that hold numbers, to be aligned right."""
        columns = [[row[i] for row in self.cells()] for i in range(len(self.head))]
        return [all(cell[:1].isdigit() or cell == "-" for cell in column) for column in columns]

    def __str__(self) -> str:
        """Plain columns of minimal width."""
        rows = [list(self.head), *self.cells()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, self.numeric(), strict=True)
            )
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Latest:
    """One of many answers without end: a terminal shows only the latest, on one line."""

    line: str
    """Overwrites the line before on a terminal."""
    text: str
    """Printed where the output is a file or a pipe."""


Piece = str | Table | Latest


class Report(Protocol):
    """The outcome of one command."""

    @property
    def failed(self) -> bool:
        """True if the exit code is 1; known once `text` or `as_json` has ended."""

    def text(self) -> Iterator[Piece]:
        """Yield the text for people, piece by piece."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields for programs: "results", a list, and others that depend on the command."""


class Interrupted(KeyboardInterrupt):
    """Raised by an interrupted command that has something to report; the exit code is 130."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def print_report(command: str, report: Report, *, as_json: bool) -> None:
    """Print a report on stdout, JSON in the envelope shared by all commands."""
    if as_json:
        envelope = {"schema": SCHEMA, "command": command, **report.as_json()}
        print(without_passwords(json.dumps(envelope, indent=1, ensure_ascii=False)))
        return
    is_terminal = sys.stdout.isatty()
    for piece in report.text():
        if isinstance(piece, Table) and is_terminal and find_spec("rich") is not None:
            _print_rich(piece)
        elif isinstance(piece, Latest):
            shown = f"\r\x1b[K{piece.line}" if is_terminal else f"{piece.text}\n"
            print(without_passwords(shown), end="", flush=True)
        else:
            print(without_passwords(str(piece)), flush=True)


def _print_rich(table: Table) -> None:
    """Return the table at the terminal's width, long cells wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, is_numeric in zip(table.head, table.numeric(), strict=True):
        shown.add_column(name, justify="right" if is_numeric else "left", overflow="fold")
    for row in table.cells():
        shown.add_row(
            *map(Text, map(without_passwords, row))
        )  # file and class names are not markup
    Console().print(shown)
