# SPDX-License-Identifier: Apache-2.0
"""Videos, read as far as possible, including frames behind a gap; missing frames are reported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from repghost_ros.errors import FrameError

_QUIET = "-8"  # FFmpeg's AV_LOG_QUIET
_PATIENCE = 100  # reads that may fail in a row before a video has ended
_COUNTED = (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".gif")
"""Formats that tell how many frames they have; of others it is reckoned from the duration."""
_RECKONED = 1  # frames by which that may be wrong


@contextmanager
def plain_path(path: Path) -> Iterator[str]:
    """Make a safe name for OpenCV and FFmpeg: colons look like protocols, non-UTF-8 bytes crash."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError:
        with TemporaryDirectory(prefix="repghost_") as folder:
            alias = Path(folder, f"video{path.suffix}")
            alias.symlink_to(path.absolute())  # a file that does not exist yet is made through it
            yield str(alias)
    else:
        yield name


def open_capture(source: str | int) -> cv2.VideoCapture:
    """Open a capture that applies the video's rotation and keeps library messages off stderr."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)
    if hasattr(cv2, "setLogLevel"):  # not every version has this property
        cv2.setLogLevel(0)
    capture = cv2.VideoCapture(source)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video, BGR uint8 (height, width, 3), as far as they can be read.

    Raises:
        FrameError: it is not a video, or frames are missing; raised after those that could be read.

    """
    with plain_path(path) as name:
        capture = open_capture(name)
        try:
            yield from _frames(path, capture)
        finally:
            capture.release()


def _frames(path: Path, capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    frames = missed = failures = 0
    while failures < _PATIENCE:
        is_read, pixels = capture.read()
        if not is_read:
            failures += 1
            continue
        missed += failures
        failures = 0
        frames += 1
        yield pixels
    if not frames:
        raise FrameError(f"'{path}' is not a video that OpenCV can read")
    if path.suffix.lower() not in _COUNTED:
        announced -= _RECKONED
    if frames < announced:
        missing = f"{frames} of {announced:.0f} frames could be read"
        raise FrameError(f"'{path}' is damaged or breaks off: {missing}")
    if missed:
        raise FrameError(f"'{path}' is damaged: {missed} frames could not be read")
