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
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from repghost_ros.cli.terminal import fitted, terminal_width
from repghost_ros.errors import without_passwords

SCHEMA = 2
"""Version of the JSON that `repghost COMMAND --json` prints; rises when a field changes its meaning."""
_NARROW = 12  # characters: text columns do not shrink below


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
        return self.fitted(None)

    def fitted(self, width: int | None) -> str:
        """Return the table as text at most so wide: cells wrapped between words, numbers never.

        Where even that is too wide, return a block of lines for every row.
        """
        rows, numeric = self.cells(), self.numeric()
        columns = list(zip(self.head, *rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        gap = "  "
        if width is not None and sum(widths) + len(gap) * (len(widths) - 1) > width:
            gap = " "
            room = width - (len(widths) - 1)
            least = [
                max(
                    _longest_word(head), *(len(c) if right else min(len(c), _NARROW) for c in cells)
                )
                for (head, *cells), right in zip(columns, numeric, strict=True)
            ]
            if sum(least) > room:
                return "\n\n".join(self._block(row, width) for row in rows)
            while sum(widths) > room:  # the widest that may shrink gives way
                spare = [(have, at) for at, have in enumerate(widths) if have > least[at]]
                widths[max(spare)[1]] -= 1
        lines = (
            gap.join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            )
            for row in (list(self.head), *rows)
            for line in zip_longest(*map(_wrapped, row, widths), fillvalue="")
        )
        return "\n".join(line.rstrip() for line in lines)

    def _block(self, row: Sequence[str], width: int) -> str:
        indent = max(map(len, self.head)) + 2
        lines = (
            f"{name:{indent}}{cell}" if name else cell
            for name, cell in zip(self.head, row, strict=True)
        )
        return "\n".join(fitted(line, width) for line in lines if line.strip())


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _wrapped(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, max(1, width), break_on_hyphens=False) or [""]


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
    width = terminal_width(sys.stdout)
    for piece in report.text():
        if isinstance(piece, Latest):
            shown = f"{piece.text}\n" if width is None else f"\r\x1b[K{piece.line}"
            print(without_passwords(shown), end="", flush=True)
        else:
            text = piece.fitted(width) if isinstance(piece, Table) else fitted(piece, width)
            print(without_passwords(text), flush=True)
