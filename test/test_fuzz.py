# SPDX-License-Identifier: Apache-2.0
"""Fuzzed messages: each is classified or refused with a FrameError, and nothing is written elsewhere.

A short run here; `python test/test_fuzz.py 100000` runs as many cases of each kind.
"""

from __future__ import annotations

import sys
from array import array
from types import SimpleNamespace

import cv2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repghost_ros.errors import FrameError
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


if __name__ == "__main__":
    test_images()
    test_compressed_images()
    print(f"{CASES} images and {CASES} compressed images: each classified or refused")
