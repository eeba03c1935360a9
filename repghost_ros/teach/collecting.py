# SPDX-License-Identifier: Apache-2.0
"""Collect frames that are worth labeling: changed scenes, unsure answers, some classes, a random share.

A picture is written as it came, the JPEG's own bytes where there are some, into FOLDER/unlabeled; the
record beside it says where each comes from. What is recorded is not collected again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.engine.overlay import picture
from repghost_ros.engine.results import UNKNOWN, Result
from repghost_ros.errors import OutputError, SourceError
from repghost_ros.output import uninterrupted, whole_file
from repghost_ros.sources.folders import IMAGES
from repghost_ros.sources.pictures import encode
from repghost_ros.teach.collected import append, read_record
from repghost_ros.teach.labeled import UNLABELED, check_class
from repghost_ros.teach.likeness import NEAR, near, thumbnail
from repghost_ros.vision.frame import Frame


@dataclass(frozen=True)
class Wanted:
    """Rules of the frames to collect; without a rule, every frame that shows something new."""

    below: float | None = None
    """Those whose best score is below this, and those of the class `unknown`."""
    margin: float | None = None
    """Those whose two best scores differ by less."""
    classes: tuple[str, ...] = ()
    """Those whose best class is one of these."""
    share: float = 0.0
    """A random share of all, 0.0 to 1.0."""
    change: float = NEAR
    """Levels of 255 by which a picture must differ from every one that was collected; 0: any."""
    most: int = 500
    """Pictures of the folder."""
    most_bytes: int = 1 << 30
    """Bytes of the folder's pictures."""

    def why(self, results: tuple[Result, ...], random: np.random.Generator) -> str:
        """Return why a frame with these results is wanted; empty if it is not."""
        scores = [result.score for result in results[:2]] + [0.0, 0.0]
        is_unknown = bool(results) and results[0].class_id == UNKNOWN
        if self.below is not None and (scores[0] < self.below or is_unknown):
            return "unsure"
        if self.margin is not None and scores[0] - scores[1] < self.margin:
            return "margin"
        if results and results[0].class_id in self.classes:
            return "class"
        if self.share and random.random() < self.share:
            return "random"
        rules = self.below is not None or self.margin is not None or self.classes or self.share
        return "" if rules else "changed"


class Collector:
    """The pictures of a folder, and the record of where they come from.

    Args:
        folder: created if missing.
        source: the recording that the pictures come from, in words.
        wanted: which of its frames.

    Raises:
        OutputError: the folder cannot be written.

    """

    def __init__(self, folder: Path, source: str, wanted: Wanted) -> None:
        self._folder, self._source, self._wanted = folder, source, wanted
        self._random = np.random.default_rng(0)
        known = list(read_record(folder))
        self.seen = max(
            (int(e.get("seen", -1)) for e in known if e.get("source") == source), default=-1
        )
        """Number of the last frame of the source that was looked at; -1: none."""
        kept = [entry for entry in known if "file" in entry]
        self.count = len(kept)
        self._bytes = sum(int(entry.get("bytes", 0)) for entry in kept)
        shown = [bytes.fromhex(entry["thumbnail"]) for entry in kept if "thumbnail" in entry]
        self._shown = [np.frombuffer(codes, np.int8).astype(np.float32) for codes in shown]
        self.full = False
        """Whether the folder holds as many pictures as it may."""
        self._check_room()

    def offer(
        self,
        frame: Frame,
        results: tuple[Result, ...],
        *,
        number: int,
        stamp_ns: int | None = None,
        original: Path | None = None,
    ) -> Path | None:
        """Keep a frame if it is wanted; returns the file, or None.

        Args:
            frame: the whole frame, not a part.
            results: the model's answer; empty where none was asked.
            number: of the frame in its source, from 0.
            stamp_ns: of the frame, nanoseconds.
            original: the file that it was read from, if that is an image.

        Raises:
            FrameError: the frame cannot be read.
            OutputError: it cannot be written; what was collected before stays.

        """
        if self.full or number <= self.seen:
            return None
        before, self.seen = self.seen, number
        why = self._wanted.why(results, self._random)
        if not why:
            return None
        shown = _shown(frame)
        values = shown.astype(np.float32)
        others = np.stack([*self._shown, values])[:-1]
        if self._wanted.change and near(values, others, self._wanted.change).any():
            return None
        about = {"seen": number, "stamp_ns": stamp_ns, "why": why}
        try:
            return self._keep(frame, shown, results, about, UNLABELED, original)
        except OutputError:
            self.seen = before  # so that the next run is offered the frame again
            raise

    def label(self, frame: Frame, results: tuple[Result, ...], number: int, name: str) -> Path:
        """Keep a frame in the folder of a class, whatever is wanted; returns the file.

        Args:
            frame: the whole frame, not a part.
            results: the model's answer.
            number: of the frame in its source.
            name: of the class, which may be new.

        Raises:
            SourceError: no class can be called so, or the folder holds as much as it may.
            FrameError: the frame cannot be read.
            OutputError: it cannot be written.

        """
        check_class(name)
        if self.full:
            raise SourceError(f"'{self._folder}' holds as many pictures as it may")
        about = {"seen": number, "stamp_ns": None, "why": "labeled"}
        return self._keep(frame, _shown(frame), results, about, name, None)

    def _keep(
        self,
        frame: Frame,
        shown: np.ndarray,
        results: tuple[Result, ...],
        about: dict[str, Any],
        folder: str,
        original: Path | None,
    ) -> Path:
        """Write a picture, and what is known about it."""
        data, suffix = _encoded(frame, original)
        path = self._free(folder, about["seen"], suffix, data)
        entry = {
            **{"file": str(path.relative_to(self._folder)), "source": self._source},
            **{**about, "bytes": len(data)},
            "answer": [{"class_id": r.class_id, "score": round(r.score, 4)} for r in results],
            "thumbnail": shown.tobytes().hex(),
        }
        with uninterrupted():
            with whole_file(path) as partial:
                partial.write_bytes(data)
            append(self._folder, entry)
        self._shown.append(shown.astype(np.float32))
        self.count += 1
        self._bytes += len(data)
        self._check_room()
        return path

    def close(self) -> None:
        """Record how far the source was looked at, so that the next run goes on there.

        Raises:
            OutputError: it cannot be written.

        """
        if self._folder.is_dir() and self.seen >= 0:
            append(self._folder, {"source": self._source, "seen": self.seen})

    def _check_room(self) -> None:
        self.full = self.count >= self._wanted.most or self._bytes >= self._wanted.most_bytes

    def _free(self, inside: str, number: int, suffix: str, data: bytes) -> Path:
        """Return a free name, or the one that a run killed before its record gave this picture."""
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", Path(self._source).name).strip("_") or "frame"
        folder = self._folder / inside
        path, again = folder / f"{stem}_{number:06}{suffix}", 2
        while path.exists() and path.read_bytes() != data:
            path, again = folder / f"{stem}_{again}_{number:06}{suffix}", again + 1
        return path


def _shown(frame: Frame) -> np.ndarray:
    """Return the thumbnail as the record has it: int8 (256,)."""
    return np.clip(thumbnail(frame), -128, 127).astype(np.int8)


def _encoded(frame: Frame, original: Path | None) -> tuple[bytes, str]:
    """Return the content of a picture file that shows a frame, and the file's ending."""
    if original is not None and original.suffix.lower() in IMAGES:
        return original.read_bytes(), original.suffix.lower()
    if frame.encoded is not None:
        return frame.encoded, ".jpg"
    bgr = np.ascontiguousarray(picture(frame)[..., ::-1])
    return encode(".png", bgr), ".png"
