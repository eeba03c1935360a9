# SPDX-License-Identifier: Apache-2.0
"""JPEGs as cameras send them, against the same decoder's picture of the plain ones, pixel by pixel.

Everything runs with libturbojpeg, where it is installed, and with OpenCV alone.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repghost_ros.errors import FrameError
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.frame import Frame, from_compressed
from repghost_ros.vision.nv12 import RESIZE_POLICIES, ResizePolicy, to_nv12

END = b"\xff\xd9"


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes with some noise, BGR."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.add(smooth, random.integers(0, 20, smooth.shape, dtype=np.uint8))


def by_opencv(pixels: np.ndarray, **options: int) -> bytes:
    names = [
        (getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value) for name, value in options.items()
    ]
    return cv2.imencode(".jpg", pixels, [each for pair in names for each in pair])[1].tobytes()


def by_pillow(pixels: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels[..., ::-1]).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


P = picture(173, 131)
KINDS = {
    "baseline": by_opencv(P),
    "one pixel": by_opencv(P[:1, :1]),
    "16 by 16": by_opencv(P[:16, :16]),
    "best quality": by_opencv(P, quality=100),
    "worst quality": by_opencv(P, quality=1),
    "progressive": by_opencv(P, progressive=1),
    "restart markers": by_opencv(P, rst_interval=1),
    "restart markers at rows": by_opencv(P, rst_interval=11),
    "optimized": by_opencv(P, optimize=1),
    "gray": by_opencv(P[..., 0]),
    "progressive gray": by_opencv(P[..., 0], progressive=1),
    "4:4:4": by_pillow(P, subsampling=0),
    "4:2:2": by_pillow(P, subsampling=1),
    "progressive 4:4:4": by_pillow(P, subsampling=0, progressive=True),
    "CMYK": by_pillow(P, "CMYK"),
    "uniform gray, as libjpeg leaves what is missing": by_opencv(
        np.full((50, 60, 3), 128, np.uint8)
    ),
    "black": by_opencv(np.zeros((50, 60, 3), np.uint8)),
    "white": by_opencv(np.full((50, 60, 3), 255, np.uint8)),
    "a comment that holds an end marker": by_pillow(P, comment=END * 9),
    "EXIF with a thumbnail": by_pillow(
        P, exif=b"Exif\0\0II*\0" + bytes(20) + by_opencv(P[:40, :40])
    ),
    "an ICC profile in many segments": by_pillow(P, icc_profile=bytes(200_000)),
}
everything = pytest.mark.parametrize("jpeg", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True, scope="module", params=["libturbojpeg", "OpenCV alone"])
def decoder(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "OpenCV alone":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turbojpeg, "library", lambda: None)
            yield request.param
    elif turbojpeg.library() is None:
        pytest.skip("libturbojpeg is not installed")
    else:
        yield request.param


def pixels_of(planes: tuple[np.ndarray, ...]) -> np.ndarray:
    """Y, U, V or BGR of each pixel, (height, width, 3); chroma is repeated."""
    if len(planes) == 1:
        (plane,) = planes
        return plane if plane.ndim == 3 else np.dstack(3 * [plane])
    height, width = planes[0].shape
    ratios = [(-(-height // plane.shape[0]), -(-width // plane.shape[1])) for plane in planes]
    whole = [plane.repeat(y, 0).repeat(x, 1) for plane, (y, x) in zip(planes, ratios)]
    return np.dstack([plane[:height, :width] for plane in whole])


def read(data: bytes) -> np.ndarray:
    """Decode it with the package, as `pixels_of` does."""
    return pixels_of(from_compressed(SimpleNamespace(data=data, format="jpeg")).decoded().planes)


def wanted(data: bytes) -> Any:
    """Decode it with the decoder itself; None if it cannot decode it."""
    decoded = turbojpeg.decode(data)
    if decoded is None:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return pixels_of(decoded.planes)


def segments(data: bytes) -> list[int]:
    """Return the offset of every marker up to the first scan."""
    places, at = [], 2
    while data[at + 1] != 0xDA:
        places.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [*places, at]


def test_a_flawless_cmyk_jpeg_is_not_complained_of(
    decoder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its corner is of one color, as libjpeg's filler for missing data is."""
    if decoder == "OpenCV alone":
        pytest.skip("it is decoded twice, and OpenCV's libjpeg prints")
    flat = by_pillow(np.full((64, 64, 3), 90, np.uint8), "CMYK")
    assert read(flat).shape == (64, 64, 3)
    assert capfd.readouterr().err == ""


@everything
def test_a_plain_one_is_what_the_decoder_makes_of_it(jpeg: bytes) -> None:
    np.testing.assert_array_equal(read(jpeg), wanted(jpeg))


OLDER = by_opencv(picture(200, 180, seed=1), quality=100)
BEHIND = {
    "nothing": b"",
    "a byte": b"\0",
    "an end marker": END,
    "a page of zeros": bytes(4096),
    "ones": b"\xff" * 1000,
    "a fixed-size buffer": bytes(173 * 131 * 2),
    "the rest of an older frame": OLDER[3000:],
    "the rest of one without end": OLDER[3000:-700],
    "another picture": OLDER,  # multi-picture format
    "a video": b"\0\0\0\x18ftypmp42" + np.random.default_rng(2).bytes(50_000),
    "half a marker": b"\xff",
}


@everything
@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_follows_the_end_does_not_matter(jpeg: bytes, behind: bytes) -> None:
    np.testing.assert_array_equal(read(jpeg + behind), wanted(jpeg))


@everything
@pytest.mark.parametrize("behind", [b"", bytes(1), bytes(2), bytes(4000)], ids=len)
def test_a_missing_end_marker_does_not_matter(jpeg: bytes, behind: bytes) -> None:
    assert jpeg.endswith(END)
    np.testing.assert_array_equal(read(jpeg[:-2] + behind), wanted(jpeg))


@everything
@pytest.mark.parametrize("stray", [b"\xff", b"\xff" * 50, b"\0", b"\x17\x2a\0", b"\xff\0"])
def test_stray_bytes_between_segments_do_not_matter(jpeg: bytes, stray: bytes) -> None:
    for at in segments(jpeg)[1:]:
        np.testing.assert_array_equal(read(jpeg[:at] + stray + jpeg[at:]), wanted(jpeg))


def test_standard_tables_may_be_missing_as_in_mjpeg() -> None:
    jpeg = by_opencv(P)
    bare = jpeg
    for at in reversed(segments(jpeg)):
        if jpeg[at + 1] == 0xC4:
            bare = bare[:at] + bare[at + 2 + int.from_bytes(bare[at + 2 : at + 4], "big") :]
    assert len(bare) < len(jpeg) - 400
    np.testing.assert_array_equal(read(bare), wanted(jpeg))


@pytest.mark.parametrize("end", [b"", END, bytes(5000), b"\0" + END])
@pytest.mark.parametrize("name", ["baseline", "4:4:4", "gray", "restart markers", "CMYK"])
def test_a_truncated_one_says_how_many_rows_it_holds(name: str, end: bytes) -> None:
    jpeg = KINDS[name]
    start = segments(jpeg)[-1] + 14
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        cut = start + int(part * (len(jpeg) - start))
        if jpeg[cut - 1] == 0xFF:
            cut -= 1
        with pytest.raises(
            FrameError, match=r"truncated: its .* hold \d+ of 131 rows|restart"
        ) as refused:
            read(jpeg[:cut] + end)
        if "hold" in str(refused.value):
            whole = wanted(jpeg)
            rows = int(str(refused.value).split("hold ")[1].split()[0])
            partial = wanted(jpeg[:cut] + END)
            # What is said to be there is there (chroma of the last row is interpolated).
            np.testing.assert_array_equal(partial[: max(0, rows - 1)], whole[: max(0, rows - 1)])
            assert abs(rows - part * 131) < 50


def test_a_truncated_progressive_one_is_refused() -> None:
    jpeg = KINDS["progressive"]
    start = segments(jpeg)[-1] + 12
    for cut in range(start, len(jpeg) - 3, 97):
        with pytest.raises(FrameError, match="truncated|cannot be decoded"):
            read(jpeg[:cut])


@everything
def test_a_cut_anywhere_is_refused_or_right(jpeg: bytes) -> None:
    whole = wanted(jpeg)
    for cut in [*range(2, len(jpeg), max(1, len(jpeg) // 60)), len(jpeg) - 3, len(jpeg) - 1]:
        try:
            pixels = read(jpeg[:cut])
        except FrameError as error:
            assert any(word in str(error) for word in ("truncated", "broken", "neither", "decoded"))
        else:
            np.testing.assert_array_equal(pixels, whole)


def test_a_truncated_header_says_how_much_is_missing() -> None:
    jpeg = KINDS["baseline"]
    at = segments(jpeg)[1]
    with pytest.raises(FrameError, match=r"truncated in its header: at least 57 more bytes"):
        read(jpeg[: at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") - 57])


def test_lost_restart_intervals_are_refused() -> None:
    jpeg = KINDS["restart markers at rows"]
    marks = [jpeg.index(bytes([0xFF, 0xD0 + n]), segments(jpeg)[-1]) for n in (2, 3)]
    with pytest.raises(FrameError, match="1 of its 9 restart intervals"):
        read(jpeg[: marks[0]] + jpeg[marks[1] :])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((0xC0, 0xC3), "lossless"),
        ((0xC0, 0xC9), "arithmetic"),
    ],
)
def test_what_opencv_cannot_decode_is_named(change: tuple[int, int], reason: str) -> None:
    jpeg = KINDS["baseline"]
    at = next(at for at in segments(jpeg) if jpeg[at + 1] == change[0])
    changed = jpeg[: at + 1] + bytes([change[1]]) + jpeg[at + 2 :]
    if wanted(changed) is not None:
        pytest.skip("this OpenCV takes it")
    with pytest.raises(FrameError, match=reason):
        read(changed)


def test_12_bits_are_named() -> None:
    jpeg = KINDS["baseline"]
    at = next(at for at in segments(jpeg) if jpeg[at + 1] == 0xC0)
    with pytest.raises(FrameError, match="12 bits"):
        read(jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :])


def test_a_height_that_follows_the_scan_is_refused() -> None:
    jpeg = KINDS["baseline"]
    at = next(at for at in segments(jpeg) if jpeg[at + 1] == 0xC0)
    late = jpeg[: at + 5] + b"\0\0" + jpeg[at + 7 : -2] + b"\xff\xdc\0\x04\0\x83" + END
    with pytest.raises(FrameError, match="173x0"):
        read(late)


@settings(max_examples=60)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    progressive=st.booleans(),
    rst_interval=st.integers(0, 7),
    gray=st.booleans(),
    behind=st.binary(max_size=64),
)
def test_any_size_and_anything_behind(
    width: int,
    height: int,
    quality: int,
    progressive: bool,
    rst_interval: int,
    gray: bool,
    behind: bytes,
) -> None:
    pixels = picture(width, height)
    jpeg = by_opencv(
        pixels[..., 0] if gray else pixels,
        quality=quality,
        progressive=int(progressive),
        rst_interval=rst_interval,
    )
    np.testing.assert_array_equal(read(jpeg + behind), wanted(jpeg))


def test_sampling_factors_of_any_kind() -> None:
    names = ("411", "420", "422", "440", "444")
    for name, restart in product(names, (0, 3)):
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}", None)
        if factor is None:  # older OpenCV
            continue
        jpeg = by_opencv(P, sampling_factor=factor, rst_interval=restart)
        np.testing.assert_array_equal(read(jpeg + bytes(999)), wanted(jpeg))


def test_a_thumbnail_does_not_end_the_picture() -> None:
    thumbnail = by_opencv(P[:30, :40])
    exif = b"Exif\0\0MM\0*" + bytes(26) + thumbnail
    jpeg = KINDS["baseline"]
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    np.testing.assert_array_equal(read(data + bytes(7)), wanted(jpeg))


def nv12(frame: Frame, resize: ResizePolicy = "stretch") -> np.ndarray:
    out = np.zeros((96, 64), np.uint8)
    to_nv12(frame, out, resize=resize)
    return out


@pytest.mark.parametrize("resize", RESIZE_POLICIES)
@pytest.mark.parametrize("gray", [False, True], ids=["color", "gray"])
@pytest.mark.parametrize("size", [(256, 192), (640, 480), (1280, 720)], ids=str)
def test_a_smaller_decoding_shows_the_same(
    size: tuple[int, int], gray: bool, resize: ResizePolicy
) -> None:
    """It is the mean over each pixel's area, to within a few levels."""
    pixels = picture(*size)
    jpeg = by_opencv(pixels[..., 0] if gray else pixels)
    frame = from_compressed(SimpleNamespace(data=jpeg, format="jpeg"))
    smaller = frame.decoded((74, 74))
    assert size[0] // smaller.width == size[1] // smaller.height > 1
    full = frame.decoded()
    for plane, whole in zip(smaller.planes, full.planes):
        area = cv2.resize(whole, plane.shape[1::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(plane.astype(int), area, atol=6)
    np.testing.assert_allclose(nv12(frame, resize).astype(int), nv12(full, resize), atol=16)


@pytest.mark.parametrize(
    ("size", "least", "decoded"),
    [
        ((1920, 1080), (224, 224), (480, 270)),
        ((1920, 1080), (480, 270), (480, 270)),
        ((1920, 1080), (481, 270), (960, 540)),
        ((640, 480), (224, 224), (320, 240)),
        ((642, 480), (224, 224), (321, 240)),
        ((641, 480), (224, 224), (641, 480)),  # an odd side has no half
        ((640, 480), (641, 480), (640, 480)),
        ((640, 480), None, (640, 480)),
    ],
)
def test_it_is_decoded_no_larger_than_needed(
    size: tuple[int, int], least: tuple[int, int] | None, decoded: tuple[int, int]
) -> None:
    frame = from_compressed(SimpleNamespace(data=by_opencv(picture(*size)), format="jpeg"))
    assert (frame.width, frame.height) == size
    smaller = frame.decoded(least)
    assert (smaller.width, smaller.height) == decoded


@pytest.mark.parametrize(
    ("region", "least", "decoded"),
    [
        ((16, 32, 320, 240), (80, 60), (80, 60)),
        ((16, 32, 320, 240), (81, 60), (160, 120)),
        ((8, 32, 320, 240), (40, 30), (80, 60)),  # a corner between two pixels of an eighth
        ((4, 32, 320, 240), (40, 30), (160, 120)),
        ((2, 32, 320, 240), (40, 30), (320, 240)),
        ((3, 33, 320, 240), (320, 240), (320, 240)),
        ((16, 32, 322, 240), (40, 30), (161, 120)),
        ((320, 240, 999, 999), (80, 60), (80, 60)),
    ],
)
def test_a_region_is_cut_out_exactly(
    region: tuple[int, int, int, int], least: tuple[int, int], decoded: tuple[int, int]
) -> None:
    data = by_opencv(picture(640, 480))
    whole = from_compressed(SimpleNamespace(data=data, format="jpeg"))
    ours = whole.crop(*region).decoded(least)
    assert (ours.width, ours.height) == decoded
    x, y, width, height = region
    x, y = x & ~1, y & ~1  # four pixels share chroma
    right, bottom = min(640, x + width), min(480, y + height)
    n = (right - x) // ours.width
    cut = read(data)[y:bottom, x:right]
    area = cv2.resize(cut, (ours.width, ours.height), interpolation=cv2.INTER_AREA)
    got = pixels_of(ours.planes).astype(int)
    np.testing.assert_allclose(got[..., 0], area[..., 0], atol=0 if n == 1 else 6)


def test_a_region_of_a_region() -> None:
    data = by_opencv(picture(640, 480))
    region = from_compressed(SimpleNamespace(data=data, format="jpeg")).crop(16, 32, 400, 300)
    inner = region.crop(32, 16, 160, 120)
    np.testing.assert_array_equal(pixels_of(inner.decoded().planes), read(data)[48:168, 48:208])
    assert inner.decoded((20, 20)).width == 40
    with pytest.raises(FrameError, match="outside the 160x120 frame"):
        inner.crop(160, 0, 1, 1)


def test_a_mosaic_is_decoded_at_full_size() -> None:
    gray = by_opencv(picture(640, 480)[..., 0])
    mosaic = from_compressed(SimpleNamespace(data=gray, format="bayer_rggb8; jpeg compressed "))
    assert mosaic.decoded((64, 64)).width == 640


def test_a_truncated_one_is_refused_when_it_is_decoded_smaller() -> None:
    jpeg = by_opencv(picture(640, 480))
    for size in range(len(jpeg) // 3, len(jpeg) - 3, len(jpeg) // 7):
        for end in (b"", END):
            frame = from_compressed(SimpleNamespace(data=jpeg[:size] + end, format="jpeg"))
            with pytest.raises(FrameError, match="truncated"):
                nv12(frame)
