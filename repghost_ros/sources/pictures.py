# SPDX-License-Identifier: Apache-2.0
"""Image files, folders of them, and videos as pictures."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from repghost_ros.errors import FrameError, SourceError
from repghost_ros.files import LFS_POINTER, LFS_REMEDY
from repghost_ros.sources.folders import IMAGES, VIDEOS, files_in
from repghost_ros.sources.videos import read_video
from repghost_ros.vision.frame import Frame, from_array, from_compressed, turned
from repghost_ros.vision.jpeg import exif_orientation


class PictureError(SourceError):
    """A path without pictures; the message says which and what to do."""


@dataclass(frozen=True)
class Picture:
    """An image, or one frame of a video, camera or stream."""

    source: str
    """Path of the file, or name of what else it comes from."""
    index: int | None = None
    """Number of the frame among those read, from 0; None for an image."""
    pixels: np.ndarray | None = None
    """BGR uint8 (height, width, 3) of a frame; None for an image, which is decoded late."""
    data: bytes | None = None
    """An encoded image that is in no file."""
    error: str = ""
    """Why there are no pixels."""

    @property
    def path(self) -> Path:
        """The file, or a path named after the source."""
        return Path(self.source)

    @property
    def name(self) -> str:
        """The source, and the number of the frame."""
        return self.source if self.index is None else f"{self.source}#{self.index}"

    def frame(self) -> Frame:
        """Return the pixels; image files are read and decoded on this call.

        Raises:
            FrameError: it is broken or no image.
            OSError: it cannot be read.

        """
        if self.error:
            raise FrameError(self.error)
        if self.pixels is not None:
            return from_array(self.pixels)
        if self.data is not None:
            return decode_image(self.data, self.source)
        return read_image(self.path)


def read_image(path: Path) -> Frame:
    """Read an image file as a frame, turned upright as its EXIF orientation says.

    Raises:
        FrameError: the file is broken or no image.
        OSError: it cannot be read.

    """
    return decode_image(path.read_bytes(), str(path))


def decode_image(data: bytes, name: str) -> Frame:
    """Return the content of an image file as a frame; errors call it `name`.

    Of 16 bits a sample the upper 8 are taken. Floating-point values are refused, for their range is
    not known.

    Raises:
        FrameError: it is broken or no image.

    """
    if data[:2] == b"\xff\xd8" or data[:4] == b"\x89PNG":
        try:
            return from_compressed(SimpleNamespace(data=data, format=""), upright=True).decoded()
        except FrameError as error:
            raise FrameError(f"'{name}': {error}") from error
    if data[:2] in (b"PF", b"Pf"):  # OpenCV would cut 0..1 to 0 and 1
        raise FrameError(f"'{name}' is a PFM image of floating-point values: convert it to 8 bits")
    if data.startswith(LFS_POINTER):
        raise FrameError(f"'{name}': {LFS_REMEDY}")
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    # Turned here: whether OpenCV itself follows the orientation of a WebP depends on its version.
    flags = (
        cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_IGNORE_ORIENTATION if is_webp else 0)
    )
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise FrameError(f"'{name}' ({len(data)} bytes) is no image that OpenCV can read")
    if pixels.dtype == np.uint16:
        pixels = (pixels // 256).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FrameError(f"'{name}' is an image of {pixels.dtype} values: convert it to 8 bits")
    frame = from_array(pixels)
    orientation = _webp_orientation(data) if is_webp else 1
    return frame if orientation == 1 else turned(frame, orientation)


def _webp_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a WebP, 1 (upright, or none given) to 8."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            return exif_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    return 1


def find(paths: Iterable[Path], *, without: Collection[Path] = ()) -> list[Path]:
    """Return these image and video files, and those in these folders, sorted by path.

    Args:
        paths: files and folders.
        without: resolved folders to leave out, such as the output folder.

    Raises:
        PictureError: a path does not exist, or a folder holds no pictures.

    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = files_in(path, (*IMAGES, *VIDEOS), without=without)
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


def is_video(path: Path) -> bool:
    """Return whether a file's ending is that of a video."""
    return path.suffix.lower() in VIDEOS


def pictures(files: Iterable[Path], *, every: int = 1) -> Iterator[Picture]:
    """One picture per image file and per video frame; one with an error where frames are missing.

    Args:
        files: each is read when its turn comes.
        every: take only every Nth frame of a video.

    """
    for path in files:
        if not is_video(path):
            yield Picture(str(path))
            continue
        index = 0
        try:
            for pixels in read_video(path):
                if index % every == 0:
                    yield Picture(str(path), index, pixels)
                index += 1
        except FrameError as error:
            yield Picture(str(path), index, error=str(error))
