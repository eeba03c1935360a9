# SPDX-License-Identifier: Apache-2.0
"""NV12 against an independent float64 reference: every encoding, odd and padded sizes, both ranges.

Largest error allowed, in levels of 255: EXACT at the model's own size, SCALED elsewhere. The helper and
Python give the same to the bit.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import nv12_reference as reference
from helpers.native import Guarded
from hypothesis import given, settings
from hypothesis import strategies as st

import repghost_ros.native as native
from repghost_ros.errors import FrameError
from repghost_ros.vision.frame import (
    BAYER,
    ENCODINGS,
    YCBCR,
    Frame,
    from_array,
    from_compressed,
    from_image,
)
from repghost_ros.vision.nv12 import (
    COLOR_RANGES,
    INTERPOLATIONS,
    ColorRange,
    Interpolation,
    ResizePolicy,
    plan,
    to_nv12,
    to_rgb,
)
from repghost_ros.vision.view import View

EXACT = 0.51
"""Levels: half a one for rounding, and what 16 bits of a factor lose."""
SCALED = 3
"""Levels that weights in 128ths and rows in eight bits may cost where a frame is scaled."""
WIDTH, HEIGHT = 16, 12  # of the model: small, so that the reference may loop
SIZES = [(16, 12), (32, 24), (8, 6), (17, 13), (33, 11), (5, 40), (160, 9), (2, 2)]
SIZES += [(68, 52), (80, 60), (66, 50), (129, 97), (40, 120), (20, 100)]  # halved, thinned, or not


def noise(rng: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """Make the hardest picture to scale, uint8 (height, width, channels)."""
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def message(encoding: str, width: int, height: int, rows: np.ndarray, padding: int = 0) -> Any:
    """Make a sensor_msgs/Image look-alike of uint8 (n, bytes) rows, followed by padding."""
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return SimpleNamespace(
        encoding=encoding, width=width, height=height, step=padded.shape[1], data=padded.tobytes()
    )


def encode(encoding: str, width: int, height: int, seed: int, padding: int = 0) -> tuple[Any, Any]:
    """Make a random message of an encoding, and its true planes.

    The planes are RGB (height, width, 3), or luma (height, width, 1) and chroma (h, w, 2).
    """
    rng = np.random.default_rng(seed)
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    if encoding in ("nv12", "nv21"):
        luma, chroma = noise(rng, height, width, 1), noise(rng, half_height, half_width, 2)
        rows = np.zeros((height + half_height, 2 * half_width), np.uint8)
        rows[:height, :width] = luma[..., 0]
        order = chroma if encoding == "nv12" else chroma[..., ::-1]
        rows[height:] = order.reshape(half_height, -1)
        return message(encoding, width, height, rows, padding), (luma, chroma)
    if encoding in ("yuv422", "yuv422_yuy2"):
        luma, chroma = noise(rng, height, width, 1), noise(rng, height, half_width, 2)
        even = np.pad(luma[..., 0], ((0, 0), (0, width % 2)), constant_values=77)
        pairs = [even, chroma.reshape(height, -1)]
        rows = np.stack(pairs if encoding == "yuv422_yuy2" else pairs[::-1], -1)
        return message(encoding, width, height, rows.reshape(height, -1), padding), (luma, chroma)
    if encoding == "mono8":
        luma = noise(rng, height, width, 1)
        return message(encoding, width, height, luma[..., 0], padding), (luma, None)
    if encoding in BAYER:
        mosaic = noise(rng, height, width, 1)[..., 0]
        return message(encoding, width, height, mosaic, padding), mosaic
    rgb = noise(rng, height, width, 3)
    pixels = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
    if encoding.endswith("a8"):
        pixels = np.dstack([pixels, rng.integers(0, 256, (height, width), dtype=np.uint8)])
    return message(encoding, width, height, pixels.reshape(height, -1), padding), rgb


def expected(
    encoding: str, planes: Any, color_range: ColorRange, source: str, kernel: str = "hermite"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference's luma (HEIGHT, WIDTH) and chroma (HEIGHT / 2, WIDTH / 2, 2)."""
    if isinstance(planes, tuple):
        luma, chroma = planes
        y = reference.resample(luma[..., 0], HEIGHT, WIDTH, kernel)
        if chroma is None:
            gray = np.full((HEIGHT // 2, WIDTH // 2, 2), 128.0)
            return reference.change_range(y, False, "full", color_range), gray
        uv = reference.resample_each(chroma, HEIGHT // 2, WIDTH // 2, kernel)
        return (
            reference.change_range(y, False, source, color_range),
            reference.change_range(uv, True, source, color_range),
        )
    if encoding in BAYER:
        rgb = demosaiced(encoding[len("bayer_") : -1], planes, kernel)
    else:
        rgb = reference.resample_each(planes, HEIGHT, WIDTH, kernel)
    y = reference.rgb_to_yuv(rgb, color_range)[..., 0]
    return y, reference.rgb_to_yuv(reference.mean_2x2(rgb), color_range)[..., 1:]


def demosaiced(cell: str, mosaic: np.ndarray, kernel: str) -> np.ndarray:
    """RGB of the model's size, of the pixels of each color where they lie in their cells."""
    height, width = (side // 2 for side in mosaic.shape)
    colors: dict[str, list[np.ndarray]] = {"r": [], "g": [], "b": []}
    for place, color in enumerate(cell):
        y, x = divmod(place, 2)
        pixels = mosaic[y : 2 * height : 2, x : 2 * width : 2]
        moved = (y / 2 - 0.25, x / 2 - 0.25)
        colors[color].append(reference.resample(pixels, HEIGHT, WIDTH, kernel, moved))
    return np.stack([np.mean(planes, axis=0) for planes in colors.values()], -1)


def buffer(padding: int = 0) -> np.ndarray:
    """Make an NV12 buffer of the model's size whose rows may be padded."""
    return np.full((HEIGHT * 3 // 2, WIDTH + padding), 0x5A, np.uint8)[:, :WIDTH]


def split(nv12: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    uv = nv12[HEIGHT:].reshape(HEIGHT // 2, WIDTH // 2, 2)
    return nv12[:HEIGHT].astype(float), uv.astype(float)


@pytest.mark.parametrize("kernel", ["hermite", "triangle"])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("source", COLOR_RANGES)
@pytest.mark.parametrize("color_range", COLOR_RANGES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_against_the_reference(
    encoding: str, color_range: ColorRange, source: ColorRange, padding: int, kernel: str
) -> None:
    interpolation: Interpolation = "antialiased" if kernel == "hermite" else "bilinear"
    for seed, (width, height) in enumerate(SIZES):
        image, planes = encode(encoding, width, height, seed, padding)
        out = buffer(padding)
        to_nv12(
            from_image(image),
            out,
            color_range=color_range,
            source_color_range=source,
            interpolation=interpolation,
        )
        y, uv = split(out)
        true_y, true_uv = expected(encoding, planes, color_range, source, kernel)
        scaled = (width, height) != (WIDTH, HEIGHT) or encoding in BAYER
        # A level of the limited range is 1.16 levels of the full one.
        most = SCALED * (1.2 if (source, color_range) == ("limited", "full") else 1.0)
        assert np.abs(y - true_y).max() <= (most if scaled else EXACT), (width, height)
        scaled |= "422" in encoding  # chroma has as many rows as luma
        assert np.abs(uv - true_uv).max() <= (most if scaled else EXACT), (width, height)


@pytest.mark.parametrize("cell", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
@pytest.mark.parametrize("source", COLOR_RANGES)
@pytest.mark.parametrize("color_range", COLOR_RANGES)
def test_planes_of_a_jpeg_against_the_reference(
    color_range: ColorRange, source: ColorRange, cell: tuple[int, int]
) -> None:
    """They are of the full range, whatever a camera's YUV is of."""
    across, down = cell
    for seed, (width, height) in enumerate(SIZES):
        rng, out = np.random.default_rng(seed), buffer()
        luma = noise(rng, height, width, 1)
        chroma = noise(rng, -(-height // down), -(-width // across), 2)
        planes = (luma[..., 0], *(np.ascontiguousarray(chroma[..., n]) for n in range(2)))
        frame = Frame(YCBCR, width, height, planes)
        to_nv12(frame, out, color_range=color_range, source_color_range=source)
        for made, true, exact in zip(
            split(out),
            expected(YCBCR, (luma, chroma), color_range, "full"),
            (luma.shape[:2] == (HEIGHT, WIDTH), chroma.shape[:2] == (HEIGHT // 2, WIDTH // 2)),
        ):
            assert np.abs(made - true).max() <= (EXACT if exact else SCALED), (width, height)


@pytest.mark.parametrize("color_range", COLOR_RANGES)
def test_to_rgb_against_the_reference(color_range: ColorRange) -> None:
    rng = np.random.default_rng(1)
    nv12 = rng.integers(0, 256, (HEIGHT * 3 // 2, WIDTH + 3), dtype=np.uint8)[:, :WIDTH]
    y, uv = split(nv12)
    yuv = np.dstack([y, uv.repeat(2, axis=0).repeat(2, axis=1)])
    error = to_rgb(nv12, color_range) - reference.yuv_to_rgb(yuv, color_range)
    assert np.abs(error).max() <= 1


@pytest.mark.parametrize("color_range", COLOR_RANGES)
def test_there_and_back(color_range: ColorRange) -> None:
    rgb = noise(np.random.default_rng(2), HEIGHT // 2, WIDTH // 2, 3).repeat(2, 0).repeat(2, 1)
    out = buffer()
    to_nv12(from_array(np.ascontiguousarray(rgb[..., ::-1])), out, color_range=color_range)
    assert np.abs(to_rgb(out, color_range).astype(int) - rgb).max() <= 4


@pytest.mark.parametrize(
    ("size", "share", "seen"),
    [
        ((64, 48), {}, (4, 3, 56, 42)),
        ((64, 48), {"crop_share": 0.5}, (16, 12, 32, 24)),
        ((480, 48), {}, (212, 3, 56, 42)),
        ((12, 48), {}, (0, 20, 12, 8)),  # as wide as it is
        ((61, 49), {"crop_share": 1.0}, (0, 1, 60, 46)),
        ((1, 1), {}, (0, 0, 1, 1)),
        ((1, 1000), {}, (0, 499, 1, 2)),
    ],
)
def test_crop_is_imagenets_center(
    size: tuple[int, int], share: dict[str, Any], seen: tuple[int, int, int, int]
) -> None:
    """A share of the short side, 224/256 unless told, of which the center has the model's aspect."""
    picture = noise(np.random.default_rng(3), size[1], size[0], 3)
    x, y, width, height = seen
    out, want = buffer(), buffer()
    plan(from_array(picture), out, resize="crop", **share).run()
    inner = np.ascontiguousarray(picture[y : y + height, x : x + width])
    to_nv12(from_array(inner), want)
    np.testing.assert_array_equal(out, want)


def test_crop_for_a_portrait_model_is_no_higher_than_the_frame() -> None:
    picture = noise(np.random.default_rng(3), 12, 48, 3)
    out, want = np.empty((24, 12), np.uint8), np.empty((24, 12), np.uint8)
    to_nv12(from_array(picture), out, resize="crop")
    to_nv12(from_array(np.ascontiguousarray(picture[:, 20:28])), want)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize(
    ("resize", "size"), [("stretch", (16, 12)), ("letterbox", (16, 12)), ("crop", (28, 20))]
)
def test_a_jpeg_is_decoded_no_larger_than_needed(
    resize: ResizePolicy, size: tuple[int, int]
) -> None:
    """A quarter of 64x48, or a half, of which the center is seen."""
    data = cv2.imencode(".jpg", noise(np.random.default_rng(6), 48, 64, 3))[1].tobytes()
    frame = from_compressed(SimpleNamespace(data=data, format="jpeg"))
    seen = plan(frame, buffer(), resize=resize).frame
    assert (seen.width, seen.height) == size


def test_crop_keeps_the_frames_aspect() -> None:
    wide = np.zeros((48, 480, 3), np.uint8)
    wide[:, 212:268] = 255  # 56 = 48 * 7/8 * 16/12 columns in the middle are seen
    out = buffer()
    to_nv12(from_array(wide), out, resize="crop")
    assert out[:HEIGHT].min() == 255


@pytest.mark.parametrize(("color_range", "black"), [("full", 0), ("limited", 16)])
def test_letterbox_keeps_everything_between_black_bars(color_range: ColorRange, black: int) -> None:
    white = np.full((10, 40, 3), 255, np.uint8)
    out = buffer()
    to_nv12(from_array(white), out, resize="letterbox", color_range=color_range)
    bars = [0, 1, 2, 3, 8, 9, 10, 11]
    assert (out[bars] == black).all()
    assert (out[4:8] == (255 if color_range == "full" else 235)).all()
    assert (out[HEIGHT:] == 128).all()


@pytest.mark.parametrize(
    ("size", "at", "inner"),
    [
        ((40, 10), (0, 4), (16, 4)),
        ((16, 10), (0, 0), (16, 10)),  # bars of one row would divide a row of chroma
        ((10, 12), (2, 0), (10, 12)),
        ((6, 24), (6, 0), (4, 12)),
        ((1000, 1), (0, 4), (16, 2)),
        ((1, 1000), (6, 0), (2, 12)),
    ],
)
def test_a_letterboxed_frame_is_converted_as_one_of_its_size(
    size: tuple[int, int], at: tuple[int, int], inner: tuple[int, int]
) -> None:
    frame = from_array(noise(np.random.default_rng(5), size[1], size[0], 3))
    (left, top), (width, height) = at, inner
    out, want = buffer(), np.empty((height * 3 // 2, width), np.uint8)
    to_nv12(frame, out, resize="letterbox")
    to_nv12(frame, want)
    whole = buffer()
    whole[:HEIGHT], whole[HEIGHT:] = 0, 128
    whole[top : top + height, left : left + width] = want[:height]
    whole[HEIGHT + top // 2 :][: height // 2, left : left + width] = want[height:]
    np.testing.assert_array_equal(out, whole)


@pytest.mark.parametrize("color_range", COLOR_RANGES)
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_gray_stays_gray(encoding: str, color_range: ColorRange) -> None:
    """To the bit, however the parts of red, green and blue are rounded."""
    for level in range(256):
        rows = np.full((HEIGHT, WIDTH * (4 if "a" in encoding else 3)), level, np.uint8)
        out = buffer()
        to_nv12(from_image(message(encoding, WIDTH, HEIGHT, rows)), out, color_range=color_range)
        luma = level if color_range == "full" else round(16 + level * 219 / 255)
        assert (out[:HEIGHT] == luma).all()
        assert (out[HEIGHT:] == 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (3, 2)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e not in BAYER])
def test_extreme_sizes(encoding: str, resize: ResizePolicy, size: tuple[int, int]) -> None:
    image, _ = encode(encoding, *size, seed=0)
    out = buffer()
    to_nv12(from_image(image), out, resize=resize)
    assert not (out == 0x5A).all()


@pytest.mark.parametrize("encoding", BAYER)
def test_a_bayer_frame_without_a_cell_is_refused(encoding: str) -> None:
    image, _ = encode(encoding, 1, 4, seed=0)
    with pytest.raises(FrameError, match="no whole 2x2 cell"):
        to_nv12(from_image(image), buffer())


@settings(max_examples=60)
@given(
    encoding=st.sampled_from(ENCODINGS),
    size=st.tuples(st.integers(2, 70), st.integers(2, 70)),
    padding=st.integers(0, 9),
    resize=st.sampled_from(["stretch", "crop", "letterbox"]),
    color_range=st.sampled_from(COLOR_RANGES),
    seed=st.integers(0, 9),
)
def test_padding_never_matters_and_nothing_else_is_written(
    encoding: str,
    size: tuple[int, int],
    padding: int,
    resize: ResizePolicy,
    color_range: ColorRange,
    seed: int,
) -> None:
    plain, padded = (encode(encoding, *size, seed, p)[0] for p in (0, padding))
    whole = np.full((HEIGHT * 3 // 2 + 2, WIDTH + 6), 0xEE, np.uint8)
    out, want = whole[1:-1, 3:-3], buffer()
    to_nv12(from_image(padded), out, resize=resize, color_range=color_range)
    to_nv12(from_image(plain), want, resize=resize, color_range=color_range)
    np.testing.assert_array_equal(out, want)
    whole[1:-1, 3:-3] = 0xEE
    assert (whole == 0xEE).all()


@pytest.mark.skipif(native.library() is None, reason="the helper is not built")
@settings(max_examples=150)
@given(
    encoding=st.sampled_from(ENCODINGS),
    size=st.tuples(st.integers(2, 130) | st.integers(600, 2000), st.integers(2, 130)),
    resize=st.sampled_from(["stretch", "crop", "letterbox"]),
    color_range=st.sampled_from(COLOR_RANGES),
    interpolation=st.sampled_from(INTERPOLATIONS),
    seed=st.integers(0, 9),
)
def test_the_helper_gives_the_same_pixels(
    encoding: str,
    size: tuple[int, int],
    resize: ResizePolicy,
    color_range: ColorRange,
    interpolation: Interpolation,
    seed: int,
) -> None:
    frame = from_image(encode(encoding, *size, seed, padding=seed)[0])
    out, want = buffer(seed), buffer()
    to_nv12(frame, out, resize=resize, color_range=color_range, interpolation=interpolation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: None)
        to_nv12(frame, want, resize=resize, color_range=color_range, interpolation=interpolation)
    np.testing.assert_array_equal(out, want)


@pytest.mark.skipif(native.library() is None, reason="the helper is not built")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nothing_is_read_outside_the_message(encoding: str) -> None:
    """In front of it lies data of its own, behind it a page that must not be touched."""
    for seed, (width, height) in enumerate([*SIZES, (2000, 48), (7, 48)]):
        image = encode(encoding, width, height, seed)[0]
        guarded = Guarded(image.data)
        image.data = guarded.view()
        to_nv12(from_image(image), buffer())


@settings(max_examples=60)
@given(
    color=st.tuples(*[st.integers(0, 255)] * 3),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    resize=st.sampled_from(["stretch", "crop"]),
    color_range=st.sampled_from(COLOR_RANGES),
)
def test_one_color_stays_one_color(
    color: tuple[int, int, int],
    size: tuple[int, int],
    resize: ResizePolicy,
    color_range: ColorRange,
) -> None:
    out = buffer()
    bgr = np.full((*size, 3), color[::-1], np.uint8)
    to_nv12(from_array(bgr), out, resize=resize, color_range=color_range)
    y, uv = split(out)
    true = reference.rgb_to_yuv(np.array(color), color_range)
    assert np.ptp(y) == np.ptp(uv[..., 0]) == np.ptp(uv[..., 1]) == 0
    assert np.abs(np.array([y[0, 0], *uv[0, 0]]) - true).max() <= 2


@settings(max_examples=100)
@given(
    size=st.tuples(st.integers(2, 300), st.integers(2, 300)),
    interpolation=st.sampled_from(INTERPOLATIONS),
    axis=st.sampled_from([0, 1]),
    seed=st.integers(0, 9),
)
def test_a_mirrored_frame_gives_a_mirrored_answer(
    size: tuple[int, int], interpolation: Interpolation, axis: int, seed: int
) -> None:
    """To the bit."""
    picture = noise(np.random.default_rng(seed), *size, 3)
    out, mirrored = buffer(), buffer()
    to_nv12(from_array(picture), out, interpolation=interpolation)
    flipped = np.ascontiguousarray(np.flip(picture, axis))
    to_nv12(from_array(flipped), mirrored, interpolation=interpolation)
    for plane, other in zip(split(out), split(mirrored)):
        np.testing.assert_array_equal(plane, np.flip(other, axis))


def test_bilinear_gives_the_zoos_pixels() -> None:
    """As its samples convert: OpenCV's bilinear resize, then I420, which is of the limited range."""
    picture = noise(np.random.default_rng(4), 90, 160, 3)
    resized = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    i420 = cv2.cvtColor(resized, cv2.COLOR_BGR2YUV_I420)
    out = buffer()
    view = View(interpolation="bilinear")
    view.plan(from_array(picture), out, "limited").run()
    assert np.abs(out[:HEIGHT].astype(int) - i420[:HEIGHT]).max() <= SCALED
    View().plan(from_array(picture), out, "limited").run()
    assert np.abs(out[:HEIGHT].astype(int) - i420[:HEIGHT]).max() > 10 * SCALED


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((18, 15), np.uint8),
        np.zeros((17, 16), np.uint8),
        np.zeros((18, 16), np.float32),
        np.zeros((18, 16, 1), np.uint8),
        np.zeros((18, 32), np.uint8)[:, ::2],
        np.zeros((18, 0), np.uint8),
        np.zeros((0, 16), np.uint8),
    ],
)
def test_what_is_no_nv12_buffer_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not an NV12 buffer"):
        to_nv12(from_array(np.zeros((4, 4, 3), np.uint8)), out)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"resize": "squash"}, "'squash' is unknown: choose stretch, crop, letterbox"),
        ({"color_range": "wide"}, "color ranges are full and limited"),
        ({"source_color_range": "wide"}, "color ranges are full and limited"),
        ({"interpolation": "cubic"}, "interpolations are antialiased and bilinear"),
    ],
)
def test_unknown_options_are_refused(option: dict[str, Any], told: str) -> None:
    frame = Frame("mono8", 4, 4, (np.zeros((4, 4), np.uint8),))
    with pytest.raises(ValueError, match=told):
        to_nv12(frame, buffer(), **option)
