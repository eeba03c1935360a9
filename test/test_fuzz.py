# SPDX-License-Identifier: Apache-2.0
"""Fuzzed messages: each is classified or refused with a FrameError, and nothing is written elsewhere.

A short run here; `python test/test_fuzz.py 100000` runs as many cases of each kind.
"""

from __future__ import annotations

import io
import sys
from array import array
from contextlib import suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace

import cv2
import numpy as np
from helpers.bags import ROS1, ROS2, compressed, film, write_ros1, write_ros2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from repghost_ros.errors import FrameError, SourceError
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.pictures import decode_image
from repghost_ros.vision.frame import ENCODINGS, from_compressed, from_image
from repghost_ros.vision.nv12 import (
    COLOR_RANGES,
    RESIZE_POLICIES,
    ColorRange,
    ResizePolicy,
    to_nv12,
)

CASES = int(sys.argv[1]) if __name__ == "__main__" else 300
SEEDS = [
    cv2.imencode(extension, np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))[1]
    for extension in (".jpg", ".png")
]
uint32 = st.integers(0, 2**32 - 1)
small = st.integers(0, 40)
fuzz = settings(max_examples=CASES, database=None, suppress_health_check=list(HealthCheck))


@fuzz
@given(
    encoding=st.sampled_from([*ENCODINGS, "uyvy", "yuyv", "8UC1", "rgb16", ""])
    | st.text(max_size=9),
    width=small | uint32,
    height=small | uint32,
    step=st.integers(0, 170) | uint32,
    data=st.binary(max_size=4096),
    resize=st.sampled_from(RESIZE_POLICIES),
    color_range=st.sampled_from(COLOR_RANGES),
    roi=st.tuples(*[st.integers(-3, 50)] * 4),
)
def test_images(
    encoding: str,
    width: int,
    height: int,
    step: int,
    data: bytes,
    resize: ResizePolicy,
    color_range: ColorRange,
    roi: tuple[int, int, int, int],
) -> None:
    message = SimpleNamespace(
        encoding=encoding, width=width, height=height, step=step, data=array("B", data)
    )
    guarded = np.full((26, 40), 0xEE, np.uint8)
    try:
        frame = from_image(message)
        if any(roi):
            frame = frame.crop(*roi)
        to_nv12(frame, guarded[1:25, 8:24], resize=resize, color_range=color_range)
    except FrameError as error:
        assert str(error)
    guarded[1:25, 8:24] = 0xEE
    assert (guarded == 0xEE).all()


@fuzz
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 4096),
    tail=st.binary(max_size=20),
)
def test_compressed_images(
    seed: np.ndarray, changes: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    data = bytearray(seed.tobytes())
    for at, value in changes:
        data[at % len(data)] = value
    message = SimpleNamespace(format="jpeg", data=array("B", bytes(data[:cut]) + tail))
    out = np.zeros((24, 16), np.uint8)
    try:
        to_nv12(from_compressed(message, max_pixels=100_000), out)
    except FrameError as error:
        assert str(error)


def damaged(random: Random, data: bytes) -> bytes:
    """Return the bytes with a few changed, left out, put in or cut off."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = int(len(changed) * random.random() ** random.choice((1, 3)))  # headers more often
        end = at + random.choice((0, 1, 4, 64))
        some = random.choice((b"", b"\0", b"\xff" * 4, random.randbytes(8)))
        changed[at:end] = some
        if random.random() < 0.1:
            del changed[at:]
    return bytes(changed)


def pictures() -> dict[str, bytes]:
    shades = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[:, None, None] * 5, (1, 64, 3)))
    files = {"a.pgm": b"P2\n# c\n8 4\n15\n" + b"7 " * 32}
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF"):
        out = io.BytesIO()
        shades.save(out, kind)
        files[kind] = out.getvalue()
    return files


def test_picture_files() -> None:
    random, files = Random(7), pictures()
    for _ in range(CASES):
        data = damaged(random, random.choice(list(files.values())))
        with suppress(FrameError):
            decode_image(data, "a").decoded()


def test_bags(tmp_path: Path) -> None:
    shown = [picture for _, picture in film(3)]
    two = [compressed(ROS2, index, picture, ".jpg") for index, picture in enumerate(shown)]
    one = [compressed(ROS1, index, picture, ".jpg") for index, picture in enumerate(shown)]
    bags = [
        write_ros2(tmp_path / "a", {"/c": two}) / "a.mcap",
        write_ros2(tmp_path / "b", {"/c": two}, storage="sqlite3") / "b.db3",
        write_ros1(tmp_path / "c.bag", {"/c": one}),
        write_ros1(tmp_path / "d.bag", {"/c": one}, "lz4"),
    ]
    random, whole = Random(7), [path.read_bytes() for path in bags]
    for _ in range(CASES):
        path = tmp_path / "damaged"
        path.write_bytes(damaged(random, random.choice(whole)))
        with suppress(SourceError), Bag(path) as bag:
            for message in bag.messages(bag.image_topic().name):
                with suppress(FrameError):
                    message.frame().decoded()


if __name__ == "__main__":
    test_images()
    test_compressed_images()
    test_picture_files()
    print(f"{CASES} images, compressed images and picture files: each classified or refused")
