"""Image files, folders of them, and videos as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from repghost_ros.frame import Frame, FrameError, from_array, from_compressed
from repghost_ros.offline import OfflineError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")


class PictureError(OfflineError):
    """A path without pictures; says which and what to do."""


@dataclass(frozen=True)
class Picture:
    """An image file, or one frame of a video."""

    path: Path
    index: int | None = None
    """Number of the frame in a video, from 0; None for an image file."""
    pixels: np.ndarray | None = None
    """BGR uint8 (height, width, 3) of a video's frame; None for an image file, which is read late."""

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
        return from_array(self.pixels) if self.pixels is not None else read_image(self.path)


def read_image(path: Path) -> Frame:
    """An image file as a frame; an EXIF orientation does not turn it, as in ImageNet's evaluation.

    Raises:
        FrameError: the file is broken or no image.
        OSError: it cannot be read.

    """
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8" or data[:4] == b"\x89PNG":
        try:
            return from_compressed(SimpleNamespace(data=data, format=path.suffix))
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
            inside = [p for p in path.rglob("*") if p.suffix.lower() in (*IMAGES, *VIDEOS)]
            if not inside:
                raise PictureError(
                    f"folder '{path}' holds no pictures: expected {', '.join((*IMAGES, *VIDEOS))}"
                )
            found += sorted(inside)
        elif path.is_file():
            found.append(path)
        else:
            raise PictureError(f"'{path}' does not exist")
    return found


def pictures(files: Iterable[Path]) -> Iterator[Picture]:
    """One picture an image file, one a frame of each video.

    Raises:
        PictureError: a video cannot be opened.

    """
    for path in files:
        if path.suffix.lower() not in VIDEOS:
            yield Picture(path)
            continue
        for index, pixels in enumerate(_video(path)):
            yield Picture(path, index, pixels)


def _video(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    try:
        read, pixels = capture.read()
        if not read:
            raise PictureError(f"'{path}' is no video that OpenCV can read")
        while read:
            yield pixels
            read, pixels = capture.read()
    finally:
        capture.release()
