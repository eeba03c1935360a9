# SPDX-License-Identifier: Apache-2.0
"""The demo's table: redrawn in place on a terminal, line by line elsewhere, 80 columns wide."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

_HEAD = ("sign shown", "classified as", "score", "right", "latency", "fps")
_ROW = "{:<21} {:<21} {:>5}  {:>9}  {:>8}  {:>5}"
_SHOWN = 10  # scenes on the terminal


@dataclass
class Sighting:
    """A sign as long as it is in view."""

    truth: str
    answer: str = ""
    """The best class of its last frame."""
    score: float = 0.0
    frames: int = 0
    right: int = 0
    latency_ms: float = 0.0
    fps: float = 0.0

    def cells(self) -> tuple[str, ...]:
        """Return a row of the table."""
        return (
            *(self.truth, self.answer, f"{self.score:.0%}", f"{self.right} of {self.frames}"),
            *(f"{self.latency_ms:.1f} ms", f"{self.fps:.1f}"),
        )


class Display:
    """Shows scenes, the newest at the bottom."""

    def __init__(self) -> None:
        self._scenes: list[Sighting] = []
        self._live: Any = None
        if sys.stdout.isatty() and find_spec("rich") is not None:
            from rich.live import Live

            self._live = Live(self._table(), auto_refresh=False)
            self._live.start()
        else:
            print(_ROW.format(*_HEAD), flush=True)

    def show(self, scene: Sighting) -> None:
        """Add or update a scene's row."""
        if not self._scenes or self._scenes[-1] is not scene:
            self._scenes = [*self._scenes[1 - _SHOWN :], scene]
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            print(_ROW.format(*scene.cells()), flush=True)

    def close(self) -> None:
        """Restore the terminal."""
        if self._live is not None:
            self._live.stop()

    def _table(self) -> Any:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, width=79)
        for name, width in zip(_HEAD, (21, 21, 5, 10, 8, 5), strict=True):
            justify: Any = "left" if width == 21 else "right"
            table.add_column(name, justify=justify, no_wrap=True, width=width)
        for scene in self._scenes:
            style = "green" if scene.answer == scene.truth else "red"
            truth, answer, *rest = scene.cells()
            table.add_row(truth, f"[{style}]{answer}[/]", *rest)
        if not self._scenes:
            table.caption = "waiting for the first answer"
        return table
