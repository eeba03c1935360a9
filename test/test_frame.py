# SPDX-License-Identifier: Apache-2.0
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

from repghost_ros.engine.overlay import picture
from repghost_ros.errors import FrameError
from repghost_ros.vision.frame import ENCODINGS, Frame, from_array, from_compressed, from_image
from repghost_ros.vision.nv12 import to_nv12

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
SMOOTH = cv2.resize(PICTURE[:2, :3] // 4 + 96, (41, 30), interpolation=cv2.INTER_LINEAR)


def image(**changes: Any) -> Any:
    """Make a valid 4x2 bgr8 message, but for the changes."""
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


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_images_are_refused(encoding: str) -> None:
    with pytest.raises(FrameError, match=f"'{encoding}' is a depth image"):
        from_image(image(encoding=encoding))


@pytest.mark.skipif("cv_bridge" in sys.modules, reason="cv_bridge is installed and takes them")
@pytest.mark.parametrize("encoding", ["mono16", "8UC2", "bayer_rggb16"])
def test_other_encodings_say_what_to_install(encoding: str) -> None:
    with pytest.raises(FrameError, match="needs cv_bridge"):
        from_image(image(encoding=encoding))


@pytest.mark.parametrize(
    ("spelled", "encoding"),
    [
        *(("BayerRG8", "bayer_rggb8"), ("BayerGR8", "bayer_grbg8")),
        *(("BayerGB8", "bayer_gbrg8"), ("BayerBG8", "bayer_bggr8"), ("SBGGR8", "bayer_bggr8")),
        *(("YUYV", "yuv422_yuy2"), ("YUV422_8", "yuv422_yuy2"), ("yuyv422", "yuv422_yuy2")),
        *(("UYVY", "yuv422"), ("YUV422_8_UYVY", "yuv422"), ("YCbCr422_8_CbYCrY", "yuv422")),
        *(("BGR8", "bgr8"), ("bgr24", "bgr8"), ("8uc3", "bgr8"), ("RGB8Packed", "rgb8")),
        *(("RGBX", "rgba8"), ("rgb0", "rgba8"), ("BGRa8", "bgra8")),
        *(("Mono8", "mono8"), ("GREY", "mono8"), ("Y800", "mono8"), ("NV12", "nv12")),
    ],
)
def test_encodings_as_other_standards_spell_them(spelled: str, encoding: str) -> None:
    sent = {"width": 2, "height": 2, "step": 8, "data": bytes(24 if encoding == "nv12" else 16)}
    assert from_image(image(encoding=spelled, **sent)).encoding == encoding


@pytest.mark.parametrize(
    "encoding",
    [
        *(
            "nv16",
            "yuv420p",
            "yuv420",
            "I420",
            "YV12",
            "rgb_8",
            "bayer_rgb8",
            "RGB888",
            "RGBA32",
            "x",
        )
    ],
)
def test_no_layout_is_guessed_from_the_letters_of_a_name(encoding: str) -> None:
    with pytest.raises(
        FrameError, match=f"'{encoding}' is unknown: let the driver publish one of mono8"
    ):
        from_image(image(encoding=encoding))


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [("jpeg", "CompressedImage"), ("h264", "CompressedImage"), ("", "no encoding")],
)
def test_what_is_no_encoding_is_told(encoding: str, hint: str) -> None:
    with pytest.raises(FrameError, match=hint):
        from_image(image(encoding=encoding))


@pytest.mark.parametrize(
    ("encoding", "size", "step", "data"),
    [
        ("bgr8", (410, 308), 1230, 320 * 416 * 3),  # both sides rounded up
        ("bgr8", (410, 308), 1230, 308 * 416 * 3),  # the width alone
        ("bgr8", (410, 308), 1230, 307 * 416 * 3 + 1230),  # and the last row without padding
        ("mono8", (1000, 1000), 1000, 1000 * 1024),
        ("mono8", (1000, 1000), 1000, 1000 * 1001),  # a byte a row
        ("bgr8", (640, 480), 1920, 2 * 480 * 1920),  # two frames
        ("nv12", (1920, 1080), 1920, 1088 * 1920 * 3 // 2),  # chroma lies elsewhere
        ("bayer_rggb8", (1292, 964), 1292, 1296 * 964),
        ("yuv422", (636, 480), 1272, 1280 * 480),
    ],
)
def test_rows_wider_than_the_step_are_refused(
    encoding: str, size: tuple[int, int], step: int, data: int
) -> None:
    width, height = size
    with pytest.raises(FrameError, match="wider than step.*Set step"):
        from_image(
            image(encoding=encoding, width=width, height=height, step=step, data=bytes(data))
        )


@pytest.mark.parametrize(
    ("encoding", "size", "step", "extra"),
    [
        ("bgr8", (640, 480), 1920, 1),
        ("bgr8", (640, 480), 1920, 64),
        ("bgr8", (100, 75), 300, 22500 // 4096 * 4096 + 4096 - 22500),  # rounded up to pages
        ("rgb8", (1920, 1080), 5760, 8 * 5760),  # a buffer of 1088 rows
        ("nv12", (640, 480), 640, 128),
    ],
)
def test_padding_that_no_wider_rows_explain_is_named(
    encoding: str, size: tuple[int, int], step: int, extra: int
) -> None:
    width, height = size
    rows = height * 3 // 2 if encoding == "nv12" else height
    frame = from_image(
        image(
            encoding=encoding,
            width=width,
            height=height,
            step=step,
            data=bytes(rows * step + extra),
        )
    )
    assert frame.note == f"{extra} bytes behind the last row are left out"
    assert frame.crop(0, 0, 2, 2).note == frame.note


@settings(max_examples=300)
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
    rows = 12 if encoding == "nv12" else 8
    data = np.arange(rows * 32, dtype=np.uint8)
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


# --- arrays --------------------------------------------------------------------------------------


def test_arrays_of_uint8_are_taken() -> None:
    for shape, encoding in (((4, 6), "mono8"), ((4, 6, 3), "bgr8"), ((4, 6, 4), "bgra8")):
        frame = from_array(np.zeros(shape, np.uint8))
        assert (frame.encoding, frame.width, frame.height) == (encoding, 6, 4)


@pytest.mark.parametrize("turn", [lambda p: p[..., ::-1], lambda p: p[::-1], lambda p: p[:, ::2]])
def test_views_with_any_strides_are_taken(turn: Any) -> None:
    wanted = turn(PICTURE)
    nv12 = [np.empty((24, 16), np.uint8) for _ in range(2)]
    to_nv12(from_array(wanted), nv12[0])
    to_nv12(from_array(wanted.copy()), nv12[1])
    np.testing.assert_array_equal(nv12[0], nv12[1])


@pytest.mark.parametrize(
    ("picture", "remedy"),
    [
        (np.zeros((4, 6, 3), np.float32), r"scale it to 0..255 and use .astype\(np.uint8\)"),
        (np.zeros((4, 6, 3), np.float64), "scale it to 0..255"),
        (np.zeros((4, 6, 3), np.uint16), "257"),
        (np.zeros((4, 6), np.int32), "0..255"),
        (np.zeros((4, 6), bool), r"\* 255"),
        (np.zeros((3, 4, 6), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((1, 4, 6, 3), np.uint8), r"batch\[0\]"),
        (np.zeros((4, 6, 1), np.uint8), r"picture\[..., 0\]"),
        (np.zeros((4, 6, 2), np.uint8), "expected uint8"),
        (np.zeros(5, np.uint8), "expected uint8"),
        (np.zeros((0, 6, 3), np.uint8), "no pixels"),
        (None, "cv2.imread returns None"),
        ([[1, 2]], "list is not a numpy array"),
    ],
)
def test_other_arrays_say_what_to_do(picture: Any, remedy: str) -> None:
    with pytest.raises(FrameError, match=remedy):
        from_array(picture)


# --- CompressedImage -----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jpeg", "png", "bgr8; jpeg compressed bgr8", "wrong", ""])
def test_the_data_tells_the_format(format: str) -> None:
    (plane,) = from_compressed(compressed(encoded(".png"), format)).planes
    np.testing.assert_array_equal(plane, PICTURE)
    frame = from_compressed(compressed(encoded(".jpg"), format)).decoded()
    assert frame.planes[0].shape[:2] == PICTURE.shape[:2]


def mosaic(bgr: np.ndarray) -> np.ndarray:
    """As a sensor with RGGB cells sees it."""
    cells = np.empty(bgr.shape[:2], np.uint8)
    for (y, x), channel in {(0, 0): 2, (0, 1): 1, (1, 0): 1, (1, 1): 0}.items():
        cells[y::2, x::2] = bgr[y::2, x::2, channel]
    return cells


COLORS = np.zeros((32, 32, 3), np.uint8)
COLORS[:] = (200, 120, 40)
GREY = mosaic(COLORS)


@pytest.mark.parametrize(
    ("format", "stored", "encoding"),
    [
        ("bgr8; jpeg compressed bgr8", COLORS, "bgr8"),
        ("rgb8; jpeg compressed bgr8", COLORS, "bgr8"),
        ("rgba8; png compressed bgr8", COLORS, "bgr8"),
        ("yuv422_yuy2; jpeg compressed bgr8", COLORS, "bgr8"),
        ("bgr8; png compressed ", COLORS, "bgr8"),
        ("rgb8; png compressed ", COLORS[..., ::-1], "rgb8"),
        ("rgb8; png compressed rgb8", COLORS[..., ::-1], "rgb8"),
        ("RGB8; JPEG compressed", COLORS[..., ::-1], "rgb8"),
        ("bgr8; jpeg compressed rgb8", COLORS[..., ::-1], "rgb8"),
        ("bayer_rggb8; png compressed ", GREY, "bayer_rggb8"),
        ("bayer_rggb8; jpeg compressed ", GREY, "bayer_rggb8"),
        ("bayer_rggb8;jpeg compressed bayer_rggb8", GREY, "bayer_rggb8"),
        ("bayer_rggb8; jpeg compressed bgr8", COLORS, "bgr8"),
        ("mono8; jpeg compressed mono8", GREY, "mono8"),
        ("mono8; png compressed ", GREY, "mono8"),
        ("mono16; jpeg compressed mono8", GREY, "mono8"),
        ("8UC1; png compressed ", GREY, "mono8"),
        ("8UC3; jpeg compressed ", COLORS, "bgr8"),
        ("jpeg", COLORS, "bgr8"),
        ("jpg", COLORS, "bgr8"),
        ("PNG", COLORS, "bgr8"),
        ("", GREY, "mono8"),
    ],
)
def test_the_format_tells_what_the_pixels_are(
    format: str, stored: np.ndarray, encoding: str
) -> None:
    extension = ".png" if "png" in format.lower() else ".jpg"
    frame = from_compressed(compressed(encoded(extension, stored), format))
    assert (frame.encoding, frame.note) == (encoding, "")
    nv12, wanted = np.empty((24, 16), np.uint8), np.empty((24, 16), np.uint8)
    to_nv12(frame, nv12)
    if encoding == "mono8":
        to_nv12(from_array(stored), wanted)
    else:
        to_nv12(from_array(COLORS), wanted)
    # A JPEG of a mosaic blurs its cells.
    np.testing.assert_allclose(nv12.astype(int), wanted, atol=12)


def test_color_that_image_transport_lost_is_said() -> None:
    frame = from_compressed(compressed(encoded(".jpg", GREY), "bayer_rggb8; jpeg compressed mono8"))
    assert frame.encoding == "mono8"
    assert "made gray" in frame.note
    assert "debayer" in frame.note


@pytest.mark.parametrize(
    ("format", "data", "reason"),
    [
        ("16UC1; compressedDepth", b"\0" * 12 + encoded(".png"), "depth image"),
        ("32FC1; compressedDepth png", b"\0" * 12 + encoded(".png"), "depth image"),
        ("16UC1; png compressed ", encoded(".png", GREY.astype(np.uint16)), "depth image"),
        ("16UC1; jpeg compressed ", encoded(".jpg", GREY), "depth image"),
        ("mono16; png compressed ", encoded(".png", GREY.astype(np.uint16)), "16 bits"),
        ("png", encoded(".png", COLORS.astype(np.uint16)), "16 bits"),
        ("bgr8; tiff compressed ", b"II*\0" + bytes(100), "TIFF.*format to jpeg or png"),
        ("h264", b"\0\0\0\x01\x67" + bytes(100), "H.264"),
        ("16UC3; jpeg compressed ", b"", "empty one.*cannot convert"),
    ],
)
def test_what_is_no_8_bit_picture_is_refused(format: str, data: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        from_compressed(compressed(data, format))


def with_exif(data: bytes, orientation: int, order: str = ">") -> bytes:
    """Add an EXIF orientation to a JPEG or PNG."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    tiff = mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    if data.startswith(b"\x89PNG"):
        chunk = b"eXIf" + tiff
        return (
            data[:33]
            + struct.pack(">I", len(tiff))
            + chunk
            + struct.pack(">I", zlib.crc32(chunk))
            + data[33:]
        )
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_turns_files_but_not_messages(orientation: int, order: str) -> None:
    jpeg = encoded(".jpg", SMOOTH)
    turned = with_exif(jpeg, orientation, order)
    frame = from_compressed(compressed(turned)).decoded()
    for plane, straight in zip(frame.planes, from_compressed(compressed(jpeg)).decoded().planes):
        np.testing.assert_array_equal(plane, straight)
    assert frame.note == ""
    upright = from_compressed(compressed(turned), upright=True).decoded()
    by_opencv = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    shown = picture(upright)[..., ::-1].astype(int)
    np.testing.assert_allclose(shown, by_opencv, atol=16)  # chroma is not interpolated
    assert np.abs(shown - by_opencv).mean() < 3
    assert (upright.height, upright.width) == by_opencv.shape[:2]
    assert upright.note == (
        "" if orientation == 1 else f"turned as its EXIF orientation {orientation} says"
    )


def test_a_png_may_have_an_exif_orientation() -> None:
    frame = from_compressed(compressed(with_exif(encoded(".png"), 6)), upright=True)
    np.testing.assert_array_equal(frame.planes[0], np.rot90(PICTURE, -1))


def test_bytes_behind_a_png_do_not_matter() -> None:
    frame: Frame = from_compressed(compressed(encoded(".png") + bytes(5000) + encoded(".png")[:99]))
    np.testing.assert_array_equal(frame.planes[0], PICTURE)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_truncated_pictures_are_refused(extension: str) -> None:
    whole = encoded(extension)
    for size in (2, 10, 20, 40, len(whole) // 2):
        with pytest.raises(FrameError):
            from_compressed(compressed(whole[:size])).decoded()


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


@settings(max_examples=300)
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
        frame = from_compressed(compressed(bytes(data[: size or None])), max_pixels=10**6).decoded()
    except FrameError as error:
        assert str(error)
    else:
        assert frame.planes[0].shape[:2] == (frame.height, frame.width)
