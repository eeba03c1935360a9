# SPDX-License-Identifier: Apache-2.0
"""Image files, folders of them, and videos as pictures."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from repghost_ros.errors import FrameError, OutputError, SourceError
from repghost_ros.files import LFS_POINTER, LFS_REMEDY
from repghost_ros.output import whole_file
from repghost_ros.sources.folders import IMAGES, VIDEOS, files_in
from repghost_ros.sources.videos import read_video
from repghost_ros.vision import png
from repghost_ros.vision.frame import Frame, from_array, from_compressed, turned
from repghost_ros.vision.jpeg import exif_orientation
from repghost_ros.vision.kinds import HEAD, kind_of
from repghost_ros.vision.kinds import VIDEOS as VIDEO_KINDS

LARGEST = 1 << 30
"""Pixels of an image file that are decoded at most, as OpenCV does itself; messages have less."""
_PICTURES = ("JPEG", "PNG", "BMP", "TIFF", "WebP", "PNM", "JPEG 2000")
_CONVERT = "convert it to JPEG or PNG"
_TURNED = re.compile(rb"\0\0\0\x09(irot[^\0]|imir)")
"""Properties of HEIF: a rotation other than 0, or a mirror."""
_BOXES = 1 << 16
"""Bytes at the beginning of an AVIF in which its properties are."""
_PNM = re.compile(rb"P(?P<kind>[2356])(?:(?:\s|#[^\n]*\n)+(?P<largest>\d+)){3}\s")
"""A PNM's header up to the largest value of a sample."""


class PictureError(SourceError):
    """A path without pictures; the message says which and what to do."""


@dataclass(frozen=True)
class Picture:
    """An image, or one frame of a video, camera or stream."""

    source: str
    """Path of the file, or name of what else it comes from."""
    index: int | None = None
    """Number of the frame among those read, from 0; None for an image."""
    pixels: np.ndarray | Frame | None = None
    """BGR uint8 (height, width, 3), or a frame; None for an image, which is decoded late."""
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

    def complaint(self, reason: str) -> str:
        """Return why it has no answer, with the name of what was refused."""
        return reason if self.source in reason else f"{self.name}: {reason}"

    def frame(self) -> Frame:
        """Return the pixels; image files are read and decoded on this call.

        Raises:
            FrameError: it is broken or no image.
            OSError: it cannot be read.

        """
        if self.error:
            raise FrameError(self.error)
        if self.pixels is not None:
            return self.pixels if isinstance(self.pixels, Frame) else from_array(self.pixels)
        if self.data is not None:
            return decode_image(self.data, self.source)
        return read_image(self.path)


def read_image(path: Path) -> Frame:
    """Return an image file as a frame, turned upright as its EXIF orientation says.

    Raises:
        FrameError: the file is broken or no image.
        OSError: it cannot be read.

    """
    return decode_image(path.read_bytes(), str(path))


def decode_image(data: bytes, name: str) -> Frame:
    """Return the content of an image file as a frame; errors call it `name`.

    Of 16 bits a sample the upper 8 are taken; samples of a PNM are scaled from the largest value that
    its header gives. Refused are 16-bit gray PNGs, which are depth or raw images, and floating-point
    values, for their range is not known. Of several pages or frames the first is taken, with a note.

    Raises:
        FrameError: it is broken or no image.

    """
    kind = kind_of(data)
    try:
        if kind in ("JPEG", "PNG"):
            message = SimpleNamespace(data=data, format="")
            frame = from_compressed(message, LARGEST, upright=True).decoded()
        else:
            frame = _by_opencv(data, kind)
    except FrameError as error:
        raise FrameError(f"'{name}': {error}") from error
    pages = _pages(data, kind)
    if pages > 1:
        notes = (frame.note, f"the first of {pages} {'pages' if kind == 'TIFF' else 'frames'}")
        frame = replace(frame, note=", ".join(filter(None, notes)))
    return frame


def _by_opencv(data: bytes, kind: str) -> Frame:
    if data[:2] in (b"PF", b"Pf"):  # OpenCV would cut 0..1 to 0 and 1
        raise FrameError("it is a PFM image of floating-point values: convert it to 8 bits")
    if data.startswith(LFS_POINTER):
        raise FrameError(LFS_REMEDY)
    if kind in ("AVIF", "HEIC") and _TURNED.search(data[:_BOXES]):
        raise FrameError(f"it is {kind} to be turned, which OpenCV does not do: {_CONVERT}")
    # Turned here: whether OpenCV itself follows the orientation of a WebP depends on its version.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    flags |= cv2.IMREAD_IGNORE_ORIENTATION if kind == "WebP" else 0
    try:
        if kind == "JPEG 2000":
            pixels = _in_another_process(data, flags)
        else:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise FrameError(_unreadable(data, kind))
    header = _PNM.match(data)
    if header:
        pixels = _scaled(pixels, int(header["largest"]), is_text=header["kind"] in b"23")
    if pixels.dtype == np.uint16:
        pixels = (pixels // 256).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FrameError(f"it is an image of {pixels.dtype} values: convert it to 8 bits")
    frame = from_array(pixels)
    orientation = _webp_orientation(data) if kind == "WebP" else 1
    return frame if orientation == 1 else turned(frame, orientation)


def _in_another_process(data: bytes, flags: int) -> np.ndarray | None:
    """Decode what OpenCV 4.11 may crash on: one wrong byte in the header of a JPEG 2000 suffices."""
    code = (
        "import io, sys, cv2, numpy as np\n"
        "data = np.frombuffer(sys.stdin.buffer.read(), np.uint8)\n"
        "out = io.BytesIO()\n"
        "np.save(out, cv2.imdecode(data, int(sys.argv[1])), allow_pickle=False)\n"
        "sys.stdout.buffer.write(out.getvalue())"
    )
    command = [sys.executable, "-c", code, str(flags)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    return None if done.returncode else np.load(io.BytesIO(done.stdout))


def _unreadable(data: bytes, kind: str) -> str:
    """Return why OpenCV cannot read an image file."""
    if not data:
        return "it is empty"
    if kind in VIDEO_KINDS:
        return f"it is a video ({kind}), which is not read as a picture"
    if kind == "WebP" and _pages(data, kind):
        version = cv2.__version__
        return f"it is an animated WebP, damaged or too new for OpenCV {version}: {_CONVERT}"
    if kind in _PICTURES:
        return f"it is {kind} of {len(data)} bytes that OpenCV cannot read: truncated or damaged?"
    if kind:
        return f"it is {kind}, which OpenCV cannot read here: {_CONVERT}"
    return f"its {len(data)} bytes are not an image that OpenCV can read"


def _scaled(pixels: np.ndarray, largest: int, *, is_text: bool) -> np.ndarray:
    """Return a PNM's samples of 0 to `largest` as uint8 of 0 to 255."""
    if largest == 255 or (is_text and largest < 256):  # these OpenCV scales itself
        return pixels
    scaled = np.rint(pixels.astype(np.float32) * (255 / max(1, largest)))
    return np.minimum(scaled, 255).astype(np.uint8)


def _pages(data: bytes, kind: str) -> int:
    """Return how many pages or frames an image file has, as far as they can be counted."""
    if kind == "PNG":
        return png.parse(data).frames
    if kind == "WebP":
        return sum(name == b"ANMF" for name, _ in _webp_chunks(data))
    if kind != "TIFF":
        return 1
    order = "<" if data[:2] == b"II" else ">"
    seen: set[int] = set()
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        while at and at not in seen:
            seen.add(at)
            (entries,) = struct.unpack_from(f"{order}H", data, at)
            (at,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * entries)
    except struct.error:  # OpenCV could read the first
        pass
    return len(seen)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of a WebP's chunks."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _webp_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a WebP, 1 (upright, or none given) to 8."""
    for name, content in _webp_chunks(data):
        if name == b"EXIF":
            return exif_orientation(content.removeprefix(b"Exif\0\0"))
    return 1


def find(paths: Iterable[Path], *, without: Collection[Path] = ()) -> list[Path]:
    """Return image and video files, and those in folders, sorted by path.

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
    """Return whether a file is a video: by its content where that is known, else by its suffix."""
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD))
    except OSError:  # whoever reads it says why
        kind = ""
    return kind in VIDEO_KINDS or (kind not in _PICTURES and path.suffix.lower() in VIDEOS)


def pictures(files: Iterable[Path], *, every: int = 1) -> Iterator[Picture]:
    """Yield a picture for an image file or video frame; one with an error where frames are missing.

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


def write_picture(path: Path, bgr: np.ndarray) -> None:
    """Write a picture in the format of its suffix.

    Args:
        path: the file; parent folders are created.
        bgr: uint8 (height, width, 3).

    Raises:
        OutputError: it cannot be written.

    """
    content = encode(path.suffix, bgr)
    with whole_file(path) as partial:
        partial.write_bytes(content)


def encode(suffix: str, bgr: np.ndarray) -> bytes:
    """Return the content of a picture file.

    Args:
        suffix: of the file, such as `.jpg`.
        bgr: uint8 (height, width, 3).

    Raises:
        OutputError: the picture is too large for the format, or for the memory.

    """
    done, content = cv2.imencode(suffix, bgr)
    if not done:  # what there is of it is cut off
        height, width = bgr.shape[:2]
        raise OutputError(f"OpenCV cannot encode {width}x{height} pixels as {suffix}")
    return content.tobytes()
