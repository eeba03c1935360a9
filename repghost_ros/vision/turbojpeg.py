# SPDX-License-Identifier: Apache-2.0
"""JPEG -> planes of Y, U and V through libturbojpeg's C interface, if installed.

A JPEG stores Y, U and V of full-range BT.601. OpenCV decodes to BGR only, which takes longer
and does not report missing data. The functions used here exist from libjpeg-turbo 2.0 to 3.x.
PyTurboJPEG is not used: each release needs either 2.x or 3.x, and it reports damage as process-wide
Python warnings.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_ulong, c_void_p
from functools import cache
from typing import NamedTuple

import numpy as np

LIBRARY = "libturbojpeg.so.0"
INSTALL = "sudo apt install libturbojpeg (Ubuntu) or libturbojpeg0 (Debian)"

_YCBCR, _GREY = 1, 2  # TJCS_*
_CMYK = 11  # TJPF_CMYK
_WARNINGS = (
    *("Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression sequence"),
    *("Invalid SOS parameters", "Unknown Adobe color transform", "Warning: unknown JFIF revision"),
)
"""What libjpeg's warnings begin with. TJERR_WARNING does not tell them from errors: an error behind a
warning has that code, too, and leaves the planes half written."""
_SIGNATURES = {
    "tjInitDecompress": ([], c_void_p),
    "tjDestroy": ([c_void_p], c_int),
    "tjDecompressHeader3": ([c_void_p, c_char_p, c_ulong, *4 * [POINTER(c_int)]], c_int),
    "tjDecompressToYUVPlanes": (
        [c_void_p, c_char_p, c_ulong, POINTER(c_void_p), c_int, POINTER(c_int), c_int, c_int],
        c_int,
    ),
    "tjDecompress2": ([c_void_p, c_char_p, c_ulong, c_void_p, *5 * [c_int]], c_int),
    "tjPlaneWidth": ([c_int, c_int, c_int], c_int),
    "tjPlaneHeight": ([c_int, c_int, c_int], c_int),
    "tjGetErrorStr2": ([c_void_p], c_char_p),
}


class Decoded(NamedTuple):
    """A picture, and libjpeg's warning about its data."""

    planes: tuple[np.ndarray, ...]
    """uint8 (height, width) of Y alone or of Y, U and V; U and V may be smaller."""
    warning: str
    """The first of libjpeg's warnings, or empty."""


class JpegHeader(NamedTuple):
    """What the library reads from a JPEG's header."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    sampling: int
    """TJSAMP_*."""
    colors: int
    """TJCS_*."""


@cache
def library() -> ctypes.CDLL | None:
    """Load the library; None if it is not installed or too old."""
    try:
        loaded = ctypes.CDLL(LIBRARY)
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, result
    except (OSError, AttributeError):
        return None
    return loaded


def read_header(data: bytes) -> JpegHeader | None:
    """Read a JPEG's header; None without the library, or if it is too broken."""
    turbo = library()
    handle = turbo and turbo.tjInitDecompress()
    if not turbo or not handle:
        return None
    try:
        return _read_header(turbo, handle, data)
    finally:
        turbo.tjDestroy(handle)


def _read_header(turbo: ctypes.CDLL, handle: int, data: bytes) -> JpegHeader | None:
    values = [c_int() for _ in JpegHeader._fields]
    # Warnings about the header also give a non-zero status, but its values are valid.
    status = turbo.tjDecompressHeader3(handle, data, len(data), *map(byref, values))
    fatal = status and not _message(turbo, handle).startswith(_WARNINGS)
    return None if fatal else JpegHeader(*(value.value for value in values))


def _message(turbo: ctypes.CDLL, handle: int) -> str:
    """Return libjpeg's first warning, or the error that ended its work."""
    message: bytes = turbo.tjGetErrorStr2(handle)
    return message.decode()


def decode(data: bytes, shrink: int = 1) -> Decoded | None:
    """Decode the planes of a JPEG; None if OpenCV has to decode it.

    That is if the library is missing, or if the JPEG holds RGB or CMYK, has sampling factors that
    the library does not support, or is too broken to be decoded.

    Args:
        data: the JPEG.
        shrink: 1, 2, 4 or 8, by which the sides are divided; a remainder counts as one more pixel.

    """
    turbo = library()
    handle = turbo and turbo.tjInitDecompress()
    if not turbo or not handle:
        return None
    try:
        header = _read_header(turbo, handle, data)
        if header is None or header.colors not in (_YCBCR, _GREY) or header.sampling < 0:
            return None
        width, height = (-(-side // shrink) for side in header[:2])
        sampling, read = header.sampling, (handle, data, len(data))
        planes = tuple(
            np.empty(
                (
                    turbo.tjPlaneHeight(number, height, sampling),
                    turbo.tjPlaneWidth(number, width, sampling),
                ),
                np.uint8,
            )
            for number in range(1 if header.colors == _GREY else 3)
        )
        addresses = (c_void_p * 3)(*(plane.ctypes.data for plane in planes))
        warning = ""
        if turbo.tjDecompressToYUVPlanes(*read, addresses, width, None, height, 0):
            warning = _message(turbo, handle)
            if not warning.startswith(_WARNINGS):
                return None
        # Y covers as many pixels as U and V, which may be more than the picture's.
        return Decoded((planes[0][:height, :width], *planes[1:]), warning)
    finally:
        turbo.tjDestroy(handle)


def is_flawless_cmyk(data: bytes, width: int, height: int) -> bool:
    """Return whether a CMYK JPEG is decoded without a warning; False without the library.

    Args:
        data: the JPEG.
        width, height: its size in pixels.

    """
    turbo = library()
    handle = turbo and turbo.tjInitDecompress()
    if not turbo or not handle:
        return False
    try:
        pixels = np.empty((height, width, 4), np.uint8)
        return not turbo.tjDecompress2(
            handle, data, len(data), pixels.ctypes.data, width, 0, height, _CMYK, 0
        )
    finally:
        turbo.tjDestroy(handle)
