"""Messages -> frames: views that are right, and refusals that say what is wrong."""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repghost_ros.errors import FrameError
from repghost_ros.vision.frame import ENCODINGS, from_array, from_compressed, from_image

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)


def image(**changes: Any) -> Any:
    """A valid 4x2 bgr8 message, but for the changes."""
    fields = {"encoding": "bgr8", "width": 4, "height": 2, "step": 12, "data": bytes(24)}
    return SimpleNamespace(**{**fields, **changes})


def compressed(data: bytes, format: str = "jpeg") -> Any:
    return SimpleNamespace(format=format, data=array("B", data))


def encoded(extension: str, picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(extension, picture)[1].tobytes()


# --- Image ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [bytes, bytearray, lambda data: array("B", data), np.frombuffer])
def test_planes_are_views_of_whatever_holds_the_data(wrap: Any) -> None:
    raw = bytes(range(24))
    data = np.frombuffer(raw, np.uint8) if wrap is np.frombuffer else wrap(raw)
    (plane,) = from_image(image(data=data)).planes
    np.testing.assert_array_equal(plane.ravel(), np.arange(24))
    assert np.shares_memory(plane, np.frombuffer(data, np.uint8))


def test_odd_yuv_sizes_round_their_chroma_up() -> None:
    nv12 = from_image(image(encoding="nv12", width=3, height=3, step=4, data=bytes(4 * 5)))
    assert [plane.shape for plane in nv12.planes] == [(3, 3), (2, 2, 2)]
    yuyv = from_image(image(encoding="yuyv", width=3, height=1, step=8, data=bytes(8)))
    assert (yuyv.encoding, yuyv.width, yuyv.planes[0].shape) == ("yuv422_yuy2", 3, (1, 4, 2))


def test_the_last_row_need_not_be_padded() -> None:
    assert from_image(image(step=20, data=bytes(20 + 12))).planes[0].shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 0}, "0x2.*no pixels"),
        ({"height": 0}, "4x0.*no pixels"),
        ({"step": 11}, "step 11 is too small: a row of 4 bgr8 pixels has 12 bytes"),
        ({"step": 0}, "step 0"),
        ({"data": bytes(23)}, "23 bytes, but 4x2 bgr8 at step 12 needs 24"),
        ({"data": b""}, "0 bytes"),
        ({"encoding": "nv12", "step": 4, "data": bytes(11)}, "needs 12"),
        ({"width": 2**31, "height": 2**31, "step": 2**32 - 1}, "step 4294967295 is too small"),
        ({"width": 40000, "height": 40000, "step": 120000}, "needs 4800000000"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        from_image(image(**changes))


@pytest.mark.skipif("cv_bridge" in sys.modules, reason="cv_bridge is installed and takes them")
@pytest.mark.parametrize("encoding", ["mono16", "32FC1", "", "no such thing"])
def test_other_encodings_say_what_to_install(encoding: str) -> None:
    with pytest.raises(FrameError, match=r"cv_bridge.*cv-bridge.*bgr8"):
        from_image(image(encoding=encoding))


@settings(deadline=None, max_examples=300)
@given(
    encoding=st.sampled_from([*ENCODINGS, "uyvy", "8UC3", "16UC1", "x"]),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 9),
    height=st.integers(0, 2**32 - 1) | st.integers(0, 9),
    step=st.integers(0, 2**32 - 1) | st.integers(0, 40),
    size=st.integers(0, 300),
)
def test_any_header_is_taken_or_refused(
    encoding: str, width: int, height: int, step: int, size: int
) -> None:
    message = image(encoding=encoding, width=width, height=height, step=step, data=bytes(size))
    try:
        frame = from_image(message)
    except FrameError as error:
        assert str(error)
    else:
        assert (frame.width, frame.height) == (width, height)
        assert all(plane.max() == 0 for plane in frame.planes)


# --- regions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "nv12", "yuv422", "bayer_rggb8"])
def test_regions_are_views_cut_at_the_edge(encoding: str) -> None:
    data = np.arange(16 * 48, dtype=np.uint8)
    frame = from_image(image(encoding=encoding, width=10, height=8, step=32, data=data.tobytes()))
    region = frame.crop(3, 3, 100, 2)
    x = 3 if encoding in ("bgr8", "mono8") else 2  # chroma and Bayer cells stay whole
    assert (region.width, region.height) == (10 - x, 2)
    assert np.shares_memory(region.planes[0], frame.planes[0])
    assert region.planes[0].ravel()[0] == frame.planes[0][x, x].ravel()[0]
    if encoding == "nv12":
        assert region.planes[1].shape == (1, 4, 2)


@pytest.mark.parametrize("region", [(10, 0, 1, 1), (0, 8, 1, 1), (-1, 0, 2, 2), (0, 0, 0, 1)])
def test_regions_outside_are_refused(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(FrameError, match="outside the 10x8 frame: set roi"):
        from_array(np.zeros((8, 10, 3), np.uint8)).crop(*region)


# --- CompressedImage -----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jpeg", "png", "bgr8; jpeg compressed bgr8", "wrong", ""])
def test_the_data_tells_the_format(format: str) -> None:
    (plane,) = from_compressed(compressed(encoded(".png"), format)).planes
    np.testing.assert_array_equal(plane, PICTURE)
    (plane,) = from_compressed(compressed(encoded(".jpg"), format)).planes
    assert plane.shape == PICTURE.shape


def test_an_exif_orientation_does_not_turn_the_picture() -> None:
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    jpeg = encoded(".jpg")
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    turned_picture = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert turned_picture is not None
    assert turned_picture.shape == (41, 30, 3)
    assert from_compressed(compressed(turned)).width == 41


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_truncated_pictures_are_refused(extension: str) -> None:
    whole = encoded(extension)
    for size in (2, 10, 20, 40, len(whole) // 2):
        with pytest.raises(FrameError):
            from_compressed(compressed(whole[:size]))


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = encoded(".jpg")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def test_a_bomb_behind_a_marker_without_length_is_found() -> None:
    bomb = jpeg_claiming(65000, 65000)
    at = bomb.index(b"\xff", 2)
    # A length of 0xffc0 would be read after it, and lead past the frame header.
    for marker in (b"\xff\x01", b"\xff\xd0"):
        with pytest.raises(FrameError, match="decoded at most"):
            from_compressed(compressed(bomb[:at] + marker + bomb[at:]))


@pytest.mark.parametrize("bomb", [png_claiming(50000, 50000), jpeg_claiming(65000, 65000)])
def test_decompression_bombs_are_refused_unopened(bomb: bytes) -> None:
    with pytest.raises(FrameError, match="more than the 64000000"):
        from_compressed(compressed(bomb))


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a" + bytes(100), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_other_data_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match="neither JPEG nor PNG|truncated or broken"):
        from_compressed(compressed(data))


@settings(deadline=None, max_examples=300)
@given(
    extension=st.sampled_from([".jpg", ".png"]),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=20),
    size=st.integers(0, 5000),
)
def test_any_corruption_is_taken_or_refused(
    extension: str, changes: list[tuple[int, int]], size: int
) -> None:
    data = bytearray(encoded(extension))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        frame = from_compressed(compressed(bytes(data[: size or None])), max_pixels=10**6)
    except FrameError as error:
        assert str(error)
    else:
        assert frame.planes[0].shape == (frame.height, frame.width, 3)
