# SPDX-License-Identifier: Apache-2.0
"""The pictures and videos of a folder, and its files that are neither."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import cv2

_log = logging.getLogger(__name__)
# What OpenCV can read depends on its build; a build that reads these formats also writes them.
_WHERE_BUILT_IN = tuple(end for end in (".jp2", ".avif") if cv2.haveImageWriter("a" + end))
IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", *_WHERE_BUILT_IN),
)
VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".h264", ".264", ".h265", ".265", ".hevc", ".mjpg", ".mjpeg", ".wmv", ".flv", ".3gp", ".ogv"),
    ".gif",
)
_NOT_DATA = {"__macosx", "thumbs.db", "desktop.ini"}
_SHOWN = 5  # endings passed over


def files_in(
    folder: Path, suffixes: Collection[str], *, without: Collection[Path] = ()
) -> list[Path]:
    """Return the files with these endings below a folder, sorted; links are followed.

    Hidden files and folders are not data, nor is what Windows and macOS leave behind. Unreadable
    folders and files with other suffixes are skipped with a warning.

    Args:
        folder: where to look.
        suffixes: suffixes, in lower case.
        without: resolved folders to leave out, such as the output folder.

    """

    def warn(error: OSError) -> None:
        _log.warning("'%s' was left out: %s", error.filename, error.strerror)

    found, visited = [], set()
    passed_over: Counter[str] = Counter()
    for root, folders, names in os.walk(folder, onerror=warn, followlinks=True):
        status = os.stat(root)
        is_left_out = Path(root) != folder and Path(root).resolve() in without
        # A link to a parent folder has been visited already.
        if (status.st_dev, status.st_ino) in visited or is_left_out:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = filter(is_data, folders)
        for name in filter(is_data, names):
            path = Path(root, name)
            if path.suffix.lower() in suffixes:
                found.append(path)
            else:
                passed_over[path.suffix.lower() or "no ending"] += 1
    if passed_over:
        counts = ", ".join(f"{n} {end}" for end, n in passed_over.most_common(_SHOWN))
        more = ", and others" if len(passed_over) > _SHOWN else ""
        _log.warning("'%s': passed over %s%s", folder, counts, more)
    return sorted(found)


def is_data(name: str) -> bool:
    """Return whether a name is that of the user's own data, not of an operating system's leftovers."""
    return not name.startswith(".") and name.lower() not in _NOT_DATA
