# SPDX-License-Identifier: Apache-2.0
"""JPEGs through libturbojpeg against OpenCV's: what the model sees, of every kind of JPEG.

The errors allowed are levels of 255. OpenCV's picture has gone to BGR, been clipped there, and back.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image, __version__

from repghost_ros.engine.overlay import picture
from repghost_ros.errors import FrameError
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.frame import YCBCR, Frame, from_compressed
from repghost_ros.vision.nv12 import COLOR_RANGES, RESIZE_POLICIES, ColorRange, ResizePolicy
from repghost_ros.vision.view import View

if turbojpeg.library() is None:
    pytest.skip("libturbojpeg is not installed", allow_module_level=True)

SAMPLINGS = {"4:4:4": 0x111111, "4:2:2": 0x211111, "4:2:0": 0x221111, "4:4:0": 0x121111}
SAMPLINGS["4:1:1"] = 0x411111
MODEL = 224
_OLD = int(__version__.partition(".")[0]) < 11


def painted(width: int, height: int) -> np.ndarray:
    """Smooth colors that are far from the edges of what RGB can show, BGR."""
    coarse = np.random.default_rng(4).integers(70, 180, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg_of(bgr: np.ndarray, sampling: str = "4:2:0", progressive: bool = False) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    if sampling != "4:2:0":
        factor = getattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR", None)
        if factor is None:
            pytest.skip("this OpenCV writes 4:2:0 alone")
        options += [factor, SAMPLINGS[sampling]]
    return cv2.imencode(".jpg", bgr, options)[1].tobytes()


def read(data: bytes, format: str = "jpeg") -> Frame:
    """Decode the whole picture."""
    return from_compressed(SimpleNamespace(data=data, format=format)).decoded()


def by_opencv(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Frame:
    with monkeypatch.context() as patch:
        patch.setattr(turbojpeg, "library", lambda: None)
        return read(data)


def seen(frame: Frame, view: View = View(), color_range: ColorRange = "full") -> np.ndarray:
    """Return the model's NV12 of a frame, as integers that may be subtracted."""
    nv12 = np.empty((MODEL * 3 // 2, MODEL), np.uint8)
    view.plan(view.crop(frame), nv12, color_range).run()
    return nv12.astype(int)


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(224, 224), (640, 480), (321, 243), (317, 227), (17, 9), (1, 1)])
def test_every_sampling_gives_what_opencv_gives(
    size: tuple[int, int], sampling: str, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg_of(painted(*size), sampling, progressive)
    frame = read(data)
    assert (frame.encoding, frame.width, frame.height) == (YCBCR, *size)
    error = np.abs(seen(frame) - seen(by_opencv(data, monkeypatch)))
    assert error[:MODEL].max() <= 5
    assert error[:MODEL].mean() <= 0.7
    if min(size) > 200:  # chroma of four pixels is stretched differently
        assert error[MODEL:].max() <= 10
        assert error[MODEL:].mean() <= 1


@pytest.mark.parametrize("color_range", COLOR_RANGES)
@pytest.mark.parametrize("source_color_range", COLOR_RANGES)
@pytest.mark.parametrize("resize", RESIZE_POLICIES)
def test_every_view_gives_what_opencv_gives(
    resize: ResizePolicy,
    color_range: ColorRange,
    source_color_range: ColorRange,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A JPEG is full range, whatever the camera's YUV is."""
    for sampling, roi in product(
        SAMPLINGS, [(0, 0, 0, 0), (64, 32, 300, 301), (300, 200, 999, 99)]
    ):
        data = jpeg_of(painted(640, 480), sampling)
        view = View(roi, resize, source_color_range)
        ours = seen(read(data), view, color_range)
        error = np.abs(ours - seen(by_opencv(data, monkeypatch), view, color_range))
        assert error[:MODEL].max() <= 6, (sampling, roi)
        assert error[MODEL:].max() <= 9, (sampling, roi)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_region_keeps_luma_and_chroma_together(sampling: str) -> None:
    data = jpeg_of(painted(101, 67), sampling)
    whole = read(data)
    across, down = (int(each) for each in f"{SAMPLINGS[sampling]:x}"[:2])
    region = whole.crop(51, 33, 30, 999)
    x, y = 51 // across * across, 33 // down * down
    assert (region.width, region.height) == (30, 67 - y)
    np.testing.assert_array_equal(region.planes[0], whole.planes[0][y:, x : x + 30])
    rows, columns = slice(y // down, None), slice(x // across, -(-(x + 30) // across))
    for ours, plane in zip(region.planes[1:], whole.planes[1:]):
        np.testing.assert_array_equal(ours, plane[rows, columns])
    inner = region.crop(4, 4, 9, 9)
    rows, columns = slice(4 // down, -(-13 // down)), slice(4 // across, -(-13 // across))
    for ours, plane in zip(inner.planes[1:], region.planes[1:]):
        np.testing.assert_array_equal(ours, plane[rows, columns])


def test_gray_is_one_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg_of(painted(321, 243)[..., 0])
    assert read(data).encoding == "mono8"
    np.testing.assert_array_equal(read(data).planes[0], by_opencv(data, monkeypatch).planes[0])


def test_the_overlay_shows_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg_of(painted(321, 243))
    ours = picture(read(data)).astype(int)
    assert ours.shape == (243, 321, 3)
    assert np.abs(ours - picture(by_opencv(data, monkeypatch))).max() <= 8


def pillow(mode: str, **options: object) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(painted(64, 48)[..., ::-1]).convert(mode)
    image.save(out, "JPEG", quality=95, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (pillow("CMYK"), "jpeg"),
        pytest.param(
            *(pillow("RGB", keep_rgb=True), "jpeg"),
            marks=pytest.mark.skipif(_OLD, reason="Pillow writes it from 10.2 on"),
        ),
        (jpeg_of(painted(64, 48)[..., ::-1]), "rgb8; jpeg compressed rgb8"),
    ],
    ids=["CMYK", "RGB inside", "encoded from RGB taken for BGR"],
)
def test_what_holds_no_luma_is_decoded_by_opencv(data: bytes, format: str) -> None:
    frame = read(data, format)
    assert frame.encoding in ("bgr8", "rgb8")
    shown = picture(frame)[..., ::-1].astype(int)
    assert np.abs(shown - painted(64, 48)).max() <= 24
    assert np.abs(shown - painted(64, 48)).mean() <= 3


# --- photographs ---------------------------------------------------------------------------------


def photographs() -> list[Path]:
    """Those that scikit-image carries; it is not imported, for its dependencies are not installed."""
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0]) / "data"
    names = (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    )
    return [folder / name for name in names]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("path", photographs(), ids=lambda path: path.name)
def test_luma_of_photographs_differs_only_where_bgr_was_clipped(
    path: Path, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their own size: at the model's, OpenCV's BGR is aliased and these planes are not."""
    data = jpeg_of(cv2.imread(str(path)), sampling)
    (bgr,) = by_opencv(data, monkeypatch).planes
    error = np.abs(read(data).planes[0].astype(int) - cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))
    clipped = ((bgr == 0) | (bgr == 255)).any(axis=2)
    assert error[~clipped].max() <= 1
    assert error.mean() <= 0.05


END = b"\xff\xd9"
TAILS = {
    "nothing": b"",
    "an end marker": END,
    "zeros": bytes(3000),
    "zeros and an end marker": bytes(3000) + END,
    "a zero and an end marker": b"\0" + END,
}
WAYS = {
    "baseline": (),
    "optimized": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "restart markers": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
}


@pytest.mark.parametrize("gray", [False, True], ids=["color", "gray"])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("way", WAYS)
def test_cut_photographs_are_refused(way: str, tail: str, gray: bool) -> None:
    """At every 64th of their data.

    Not noticed is a cut between two scans of a progressive JPEG that has an end marker: it is a
    complete JPEG of fewer scans.
    """
    for path in photographs()[1:3]:
        bgr = cv2.imread(str(path))[:160, :200]
        data = cv2.imencode(".jpg", bgr[..., 1] if gray else bgr, WAYS[way])[1].tobytes()
        start = data.index(b"\xff\xda") + 14
        taken = []
        for part in range(1, 64):
            cut = start + (len(data) - 2 - start) * part // 64
            try:
                frame = read(data[:cut].rstrip(b"\xff") + TAILS[tail])
            except FrameError:
                continue
            if any((a != b).any() for a, b in zip(frame.planes, read(data).planes)):
                taken.append(part)
        between_scans = 1 if way == "progressive" and tail.endswith("end marker") else 0
        assert len(taken) <= between_scans, taken


def test_lost_data_between_restart_markers_is_noticed() -> None:
    bgr = painted(320, 240)
    data = cv2.imencode(".jpg", bgr, WAYS["restart markers"])[1].tobytes()
    mark = data.index(b"\xff\xd3", data.index(b"\xff\xda"))
    with pytest.raises(FrameError, match="libjpeg says: Corrupt JPEG data"):
        read(data[: mark - 9] + data[mark:])


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("way", WAYS)
def test_zeros_behind_a_complete_picture_are_harmless(way: str, tail: str) -> None:
    """With one exception: uniform 128 with optimized tables, whose data is zeros alone."""
    black = np.zeros((64, 96, 3), np.uint8)
    for bgr in (
        painted(96, 64),
        black,
        black + 255,
        *([] if way == "optimized" else [black + 128]),
    ):
        data = cv2.imencode(".jpg", bgr, WAYS[way])[1].tobytes()
        frame = read(data[:-2] + TAILS[tail])
        np.testing.assert_array_equal(frame.planes[0], read(data).planes[0])


@pytest.mark.parametrize("progressive", [0, 1])
def test_no_byte_of_a_damaged_jpeg_is_left_undecoded(
    progressive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error behind a warning has a warning's code, and leaves planes as they were allocated."""
    coarse = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    whole = cv2.imencode(".jpg", cv2.resize(coarse, (19, 18)), options)[1].tobytes()
    refused = 0
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        decoded = []
        for value in (0, 255):
            monkeypatch.setattr(np, "empty", lambda shape, dtype, v=value: np.full(shape, v, dtype))
            decoded.append(turbojpeg.decode(damaged))
            monkeypatch.undo()
        one, other = decoded
        assert (one is None) == (other is None), at
        if one is None or other is None:
            refused += 1
            continue
        for mine, others in zip(one.planes, other.planes, strict=True):
            np.testing.assert_array_equal(mine, others, f"byte {at}: {one.warning}")
    assert 0 < refused < len(whole)
