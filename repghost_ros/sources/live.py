# SPDX-License-Identifier: Apache-2.0
"""Cameras, streams and standard input as pictures: sources without an end of their own."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import cv2

from repghost_ros.errors import SourceError, without_passwords
from repghost_ros.sources.pictures import Picture, pictures
from repghost_ros.sources.videos import open_capture

STDIN = ("-", "/dev/stdin")
PROTOCOLS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
_PIECE = 1 << 16  # bytes
_JPEG = b"\xff\xd8"
_BETWEEN = re.compile(rb"\xff\xd9[\0\r\n\t ]*(?=\xff\xd8)")
"""The end of a JPEG, and padding, in front of the next one."""
_MPF_PICTURES = 0xB001
"""The tag of the number of pictures."""
_PICTURES = (b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
"""What the formats begin with that are read whole."""


def is_live(source: str) -> bool:
    """Return whether a source is a camera, a stream or standard input.

    Raises:
        SourceError: it is a URL with an unsupported protocol.

    """
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", source)
    if url and url[1].lower() not in PROTOCOLS:
        raise SourceError(f"'{source}': {url[1]} is not supported, but {', '.join(PROTOCOLS)} are")
    return bool(url) or source in STDIN or _camera(source) is not None


def live_pictures(source: str, *, every: int = 1, max_rate: float = 0.0) -> Iterator[Picture]:
    """Yield the pictures of a camera, stream or standard input, until it ends or is interrupted.

    Args:
        source: `0` or `/dev/video0`, a URL, `-` or `/dev/stdin`.
        every: take only every Nth picture.
        max_rate: take at most this many per second and skip the rest; 0: all.

    Raises:
        SourceError: it cannot be opened, delivers nothing, or ended unexpectedly.

    """
    read = (
        _from_stdin() if source in STDIN else _captured(without_passwords(source), _source(source))
    )
    with closing(read) as made:
        due = 0.0
        for number, picture in enumerate(made):
            now = time.monotonic()
            if number % every or now < due:
                continue
            if max_rate:  # on a fixed grid, so that a camera's jitter does not accumulate
                due = max(due + 1 / max_rate, now)
            yield picture


def _camera(source: str) -> int | None:
    if source.isdecimal():
        return int(source)
    device = re.fullmatch(r"/dev/video(\d+)", source)
    return int(device[1]) if device else None


def _source(source: str) -> str | int:
    camera = _camera(source)
    return source if camera is None else camera


def _captured(name: str, source: str | int) -> Generator[Picture, None, None]:
    capture = open_capture(source)
    try:
        if not capture.isOpened():
            raise SourceError(f"'{name}' cannot be opened{_instead(source)}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # show the current frame, if the driver can
        index = 0
        is_read, pixels = capture.read()
        while is_read:
            yield Picture(name, index, pixels)
            index += 1
            is_read, pixels = capture.read()
        if not index or isinstance(source, int):
            raise SourceError(f"'{name}' sent {index} pictures and then no more")
    finally:
        capture.release()


def _instead(source: str | int) -> str:
    if isinstance(source, str):
        return ": is it reachable, and does it send a format that OpenCV reads?"
    cameras = sorted(path.name for path in Path("/dev").glob("video*"))
    return f": there is {', '.join(cameras) or 'no camera'} in /dev; a file is named ./{source}"


def _from_stdin() -> Generator[Picture, None, None]:
    """One picture, JPEGs one after another, or a video that can be read as it arrives."""
    if sys.stdin.isatty():
        raise SourceError("'-': standard input is a terminal: pipe a picture or video into it")
    stream: Any = sys.stdin.buffer
    head = stream.peek(16)
    if head.startswith(_JPEG):
        yield from _jpegs(stream)
    elif head.startswith(_PICTURES) or head[8:12] == b"WEBP":
        yield Picture("-", data=stream.read())
    elif head[4:8] == b"ftyp":  # MP4 may hold its index at the end only
        with NamedTemporaryFile(prefix="repghost_", suffix=".mp4") as file:
            shutil.copyfileobj(stream, file)
            file.flush()
            yield from (replace(found, source="-") for found in pictures([Path(file.name)]))
    elif head:
        yield from _video(stream)
    else:
        raise SourceError("'-': standard input is empty")


def _jpegs(stream: Any) -> Iterator[Picture]:
    """Yield JPEGs that follow one another, with padding or line breaks in between."""
    waiting, index, attached = b"", 0, 0
    while piece := stream.read1(_PIECE):
        waiting += piece
        # A thumbnail's end marker lies within a segment, so no start marker follows it.
        while found := _BETWEEN.search(waiting):
            data, waiting = waiting[: found.end()], waiting[found.end() :]
            if not attached:
                yield Picture("-", index, data=data)
                index += 1
            attached = attached - 1 if attached else _attached(data)
    if waiting and not attached:
        yield Picture("-", index or None, data=waiting)


def _attached(data: bytes) -> int:
    """Return how many JPEGs follow as parts of this one, such as the gain map of Ultra HDR.

    By the index of CIPA DC-007 (Multi-Picture Format) in its APP2 segment.
    """
    at = data.find(b"MPF\0") + 4
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[at : at + 4]) if at >= 4 else None
    if order is None:
        return 0
    try:
        entries = at + struct.unpack_from(f"{order}I", data, at + 4)[0]
        for number in range(struct.unpack_from(f"{order}H", data, entries)[0]):
            tag, _, _, value = struct.unpack_from(f"{order}HHII", data, entries + 2 + 12 * number)
            if tag == _MPF_PICTURES:
                return max(0, int(value) - 1)
    except struct.error:  # a broken index: the pictures count as they come
        pass
    return 0


def _video(stream: Any) -> Iterator[Picture]:
    reading, writing = os.pipe()

    def pump() -> None:
        with (
            suppress(OSError),
            os.fdopen(writing, "wb") as pipe,
        ):  # the reader may have closed the pipe
            while piece := stream.read1(_PIECE):
                pipe.write(piece)

    threading.Thread(target=pump, daemon=True).start()
    try:
        yield from _captured("-", f"pipe:{reading}")
    finally:
        os.close(reading)
