# SPDX-License-Identifier: Apache-2.0
"""Annotated copies of pictures and videos in a folder, written completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from repghost_ros.engine.model import Answered
from repghost_ros.engine.overlay import annotated
from repghost_ros.engine.request import Request
from repghost_ros.errors import OutputError
from repghost_ros.output import named_errors, whole_file
from repghost_ros.sources.pictures import Picture, write_picture
from repghost_ros.sources.videos import open_capture, plain_path

_FPS = 30.0  # used if the source does not say
_MAX_FPS = 1000.0  # larger values are meaningless


class Saver:
    """Writes under the pictures' own names; never overwrites an original or another picture.

    Args:
        folder: created if missing.
        originals: files that are never overwritten.
        sources: folders that were given; what is below one keeps its subfolder.

    Raises:
        OutputError: the folder cannot be made.

    """

    def __init__(
        self, folder: Path, originals: Iterable[Path], sources: Iterable[Path] = ()
    ) -> None:
        with named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._sources = [path for path in sources if path.is_dir()]
        self._taken = {path.resolve() for path in originals}
        self._video: _Video | None = None

    def save(self, answered: Answered[Request[Picture]]) -> Path:
        """Draw one picture, and return the file that it is written to.

        Raises:
            OutputError: it cannot be written.

        """
        shown = answered.request.message
        return self.write(shown, annotated(answered.frame, answered.results))

    def write(self, shown: Picture, bgr: np.ndarray) -> Path:
        """Write one picture, and return its file.

        Args:
            shown: the original.
            bgr: uint8 (height, width, 3).

        Raises:
            OutputError: it cannot be written.

        """
        if shown.index is not None:
            if self._video is None or self._video.source != shown.source:
                self.close()
                target = self._free(shown, ".mp4")
                self._video = _Video(shown.source, target, bgr.shape[1::-1])
            self._video.write(bgr)
            return self._video.target
        target = self._free(shown, ".png" if shown.path.suffix.lower() == ".png" else ".jpg")
        write_picture(target, bgr)
        return target

    def close(self) -> None:
        """Finish the current video.

        Raises:
            OutputError: it could not be written completely; it is removed.

        """
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def _free(self, shown: Picture, suffix: str) -> Path:
        """Return a free name, because names may repeat between folders."""
        folder, stem = self._folder, "stream"
        if shown.path.is_file():
            stem = shown.path.stem
            for source in self._sources:
                if shown.path.is_relative_to(source):
                    folder = self._folder / shown.path.relative_to(source).parent
                    break
            folder.mkdir(parents=True, exist_ok=True)
        path, number = folder / f"{stem}{suffix}", 1
        while path.resolve() in self._taken:
            path, number = folder / f"{stem}_{number}{suffix}", number + 1
        self._taken.add(path.resolve())
        return path


def _fps(source: Path) -> float:
    if not source.is_file():
        return _FPS
    with plain_path(source) as name:
        original = open_capture(name)
        fps = float(original.get(cv2.CAP_PROP_FPS))
        original.release()
    return fps if 0 < fps <= _MAX_FPS else _FPS


class _Video:
    """An annotated video being written."""

    def __init__(self, source: str, target: Path, size: tuple[int, ...]) -> None:
        self.source = source
        self.target = target
        self._frames = 0
        self._size = size
        fps = _fps(Path(source))
        self._opened = ExitStack()
        self._partial = self._opened.enter_context(whole_file(target))
        name = self._opened.enter_context(plain_path(self._partial))
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer: Any = cv2.VideoWriter(name, codec, fps, size)
        if not self._writer.isOpened():
            self._end(OutputError(f"'{target}' cannot be written"))

    def write(self, bgr: np.ndarray) -> None:
        """Append a frame, resized to the first one's size if necessary."""
        if bgr.shape[1::-1] != self._size:
            bgr = cv2.resize(bgr, self._size)
        self._writer.write(bgr)
        self._frames += 1

    def close(self) -> None:
        """Finish the file and check that it is complete: OpenCV does not report a full disk."""
        self._writer.release()
        with plain_path(self._partial) as name:
            written = open_capture(name)
            frames = written.get(cv2.CAP_PROP_FRAME_COUNT) if written.isOpened() else 0
            written.release()
        if frames != self._frames:
            self._end(
                OutputError(
                    f"'{self.target}' could not be written whole and was removed: is the disk full?"
                )
            )
        self._end()

    def _end(self, error: OutputError | None = None) -> None:
        """Give the file its name, or remove it and raise the error."""
        with self._opened:
            if error is not None:
                raise error
