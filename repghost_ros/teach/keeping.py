# SPDX-License-Identifier: Apache-2.0
"""Frames that are labeled while they are watched: written into the folder of their class at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from repghost_ros.engine.results import Result
from repghost_ros.errors import SourceError
from repghost_ros.output import named_errors
from repghost_ros.teach.collecting import Collector, Wanted
from repghost_ros.teach.labeled import class_counts
from repghost_ros.vision.frame import Frame


class Keeper:
    """The folder of a `repghost watch --label`.

    Args:
        folder: created if missing; with a subfolder for each class that there is already.
        source: where the frames come from, in words.

    Raises:
        OutputError: the folder cannot be made.

    """

    def __init__(self, folder: Path, source: str) -> None:
        with named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()  # guards everything below
        self._collector = Collector(folder, source, Wanted())
        self._kept: list[Path] = []
        self._classes = class_counts(folder)

    def state(self) -> dict[str, Any]:
        """Return the folder in words, and the classes with their counts."""
        with self._lock:
            return {"folder": str(self._folder), "classes": self._classes}

    def label(self, frame: Frame, results: tuple[Result, ...], number: int, name: str) -> str:
        """Keep a frame as one of a class; returns what was done in words.

        Raises:
            SourceError: no class can be called so, or the folder is full.
            FrameError: the frame cannot be read.
            OutputError: it cannot be written.

        """
        name = name.strip()
        with self._lock:
            self._kept.append(self._collector.label(frame, results, number, name))
            self._classes = class_counts(self._folder)
            return f"frame {number} is labeled {name}"

    def undo(self) -> str:
        """Remove the picture that was kept last; returns what was done in words.

        Raises:
            SourceError: there is none.
            OutputError: it cannot be removed.

        """
        with self._lock:
            if not self._kept:
                raise SourceError("nothing to undo")
            path = self._kept.pop()
            with named_errors(path):
                path.unlink(missing_ok=True)
            self._classes = class_counts(self._folder)
            return f"{path.parent.name}/{path.name} is removed"
