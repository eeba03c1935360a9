# SPDX-License-Identifier: Apache-2.0
"""Serialized images in front of a page that must not be touched; the package without its helper."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import repghost_ros.native as native

WIDTH, HEIGHT, CLASSES = 32, 18, 17
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """Bytes in front of a page that must not be touched."""

    def __init__(self, content: bytes) -> None:
        page = mmap.PAGESIZE
        room = -(-max(1, len(content)) // page) * page
        self._map = mmap.mmap(-1, room + page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        assert not _libc.mprotect(start + room, page, 0)
        self.size = len(content)
        self.address = start + room - self.size
        self._map[room - self.size : room] = content

    def view(self) -> memoryview:
        array = (ctypes.c_uint8 * self.size).from_address(self.address)
        array.keeps = self  # type: ignore[attr-defined]
        return memoryview(array).cast("B")


def serialized(
    frame_id: str = "camera",
    encoding: str = "nv12",
    width: int = WIDTH,
    height: int = HEIGHT,
    step: int = WIDTH,
    data: bytes | None = None,
    order: str = "<",
) -> bytes:
    """Serialize an Image as DDS delivers it."""
    if data is None:
        data = (
            np.random.default_rng(step).integers(0, 256, step * height * 3 // 2, np.uint8).tobytes()
        )
    out = bytearray(b"\0\1\0\0" if order == "<" else b"\0\0\0\0")

    def number(format: str, value: int) -> None:
        out.extend(bytes(-(len(out) - 4) % struct.calcsize(format)))
        out.extend(struct.pack(order + format, value))

    for text, before, after in (
        (frame_id, (("i", 7), ("I", 8)), (("I", height), ("I", width))),
        (encoding, (), (("B", 0), ("I", step), ("I", len(data)))),
    ):
        for each in before:
            number(*each)
        encoded = text.encode() + b"\0"
        number("I", len(encoded))
        out += encoded
        for each in after:
            number(*each)
    return bytes(out) + data


def packed(data: bytes, format: str = "jpeg") -> bytes:
    """Serialize a CompressedImage as DDS delivers it."""
    text = format.encode() + b"\0"
    head = b"\0\1\0\0" + struct.pack("<iII", 1, 2, 4) + b"cam\0"
    head += struct.pack("<I", len(text)) + text
    head += bytes(-(len(head) - 4) % 4)
    return head + struct.pack("<I", len(data)) + data


@contextmanager
def without_helper() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: None)
        yield
