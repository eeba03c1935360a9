"""Image files, folders of them, and videos as pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from repghost_ros.errors import FrameError, SourceError
from repghost_ros.vision.frame import Frame, from_array, from_compressed

_log = logging.getLogger(__name__)
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")


class PictureError(SourceError):
    """A path without pictures; says which and what to do."""


@dataclass(frozen=True)
class Picture:
    """An image file, or one frame of a video."""

    path: Path
    index: int | None = None
    """Number of the frame in a video, from 0; None for an image file."""
    pixels: np.ndarray | None = None
    """BGR uint8 (height, width, 3) of a video's frame; None for an image file, which is read late."""
    error: str = ""
    """Why there are no pixels."""

    @property
    def name(self) -> str:
        """The path, and the number of the frame."""
        return str(self.path) if self.index is None else f"{self.path}#{self.index}"

    def frame(self) -> Frame:
        """The pixels; an image file is read now.

        Raises:
            FrameError: the file is broken or no image.
            OSError: it cannot be read.

        """
        if self.error:
            raise FrameError(self.error)
        return from_array(self.pixels) if self.pixels is not None else read_image(self.path)


def read_image(path: Path) -> Frame:
    """An image file as a frame, turned upright as its EXIF orientation says.

    Raises:
        FrameError: the file is broken or no image.
        OSError: it cannot be read.

    """
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8" or data[:4] == b"\x89PNG":
        try:
            return from_compressed(SimpleNamespace(data=data, format=path.suffix), upright=True)
        except FrameError as error:
            raise FrameError(f"'{path}': {error}") from error
    # OpenCV names many exceptions for the many ways in which a file is no image.
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise FrameError(f"'{path}' ({len(data)} bytes) is no image that OpenCV can read")
    return from_array(pixels)


def find(paths: Iterable[Path]) -> list[Path]:
    """The image and video files named, and those in the folders named, sorted by path.

    Raises:
        PictureError: a path does not exist, or a folder holds no pictures.

    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = files_in(path, (*IMAGES, *VIDEOS))
            if not inside:
                raise PictureError(
                    f"folder '{path}' holds no pictures: expected {', '.join((*IMAGES, *VIDEOS))}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise PictureError(f"'{path}' does not exist")
    return found


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files with these endings below a folder, sorted; links are followed.

    A folder that cannot be read is left out, with a warning.
    """

    def warn(error: OSError) -> None:
        _log.warning("'%s' was left out: %s", error.filename, error.strerror)

    found, visited = [], set()
    for root, folders, names in os.walk(folder, onerror=warn, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder further up
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        found += [Path(root, name) for name in names if Path(name).suffix.lower() in suffixes]
    return sorted(found)


def pictures(files: Iterable[Path]) -> Iterator[Picture]:
    """One picture an image file, one a frame of each video."""
    for path in files:
        if path.suffix.lower() not in VIDEOS:
            yield Picture(path)
            continue
        index = 0
        for index, pixels in enumerate(_video(path), start=1):
            yield Picture(path, index - 1, pixels)
        if not index:
            yield Picture(path, 0, error=f"'{path}' is no video that OpenCV can read")


def _video(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    try:
        read, pixels = capture.read()
        while read:
            yield pixels
            read, pixels = capture.read()
    finally:
        capture.release()
