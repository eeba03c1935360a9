# SPDX-License-Identifier: Apache-2.0
"""Formats of pictures, videos and other files, by their first bytes."""

from __future__ import annotations

HEAD = 32
"""Bytes that `kind_of` looks at."""
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "camera raw",
}
"""ISO/IEC 14496-12: what a file is that begins with ftyp, by its major brand; MP4 otherwise."""
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0\x10\0\0\0CR": "camera raw",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"\0\0\0\x01": "H.264 or H.265",
    b"\0\0\x01\xba": "MPEG",
    b"\0\0\x01\xb3": "MPEG",
    b"\0\0\x01": "H.264 or H.265",
    b"\x1aE\xdf\xa3": "Matroska",
    b"FLV\1": "FLV",
    b"OggS": "Ogg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "Windows Media",
    b"qoif": "QOI",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"PK\3\4": "ZIP",
    b"\x1f\x8b": "gzip",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NumPy",
    b"v/1\x01": "OpenEXR",
    b"\x89MCAP": "MCAP",
    b"#ROSBAG": "ROS 1 bag",
    b"SQLite format 3": "SQLite",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
    b"<svg": "SVG",
    b"<?xml": "XML",
}
VIDEOS = ("MP4", "AVI", "MPEG", "Matroska", "FLV", "Ogg", "Windows Media", "GIF")
"""Kinds that are read as videos whatever the file is called."""


def kind_of(data: bytes) -> str:
    """Return a file's format by its first HEAD bytes; empty if it is not known.

    Args:
        data: the file or its beginning.

    """
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "MP4")
    if data[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "AVI"}.get(data[8:12], "")
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return "PNM"
    return next((kind for magic, kind in _SIGNATURES.items() if data.startswith(magic)), "")
