# SPDX-License-Identifier: Apache-2.0
"""NV12 conversion to 224x224 against the model zoo's way and against copying the source once.

Both ways get camera frames that are not in the processor's cache, one after another, single-threaded;
`hot` is our way with the same frame again.
The zoo's way resizes BGR (bilinear), converts to I420 and repacks; other sources become BGR first.
JPEGs are measured against decoding all of them to BGR, which is then converted our way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np

from bench.baseline_node import bgr_to_nv12
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.frame import from_array, from_compressed, from_image
from repghost_ros.vision.nv12 import to_nv12

SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
RING = 128e6  # bytes of different frames that are taken in turn
ROUNDS = 60
_TO_BGR: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bgr8": lambda rows: rows,
    "rgb8": lambda rows: cv2.cvtColor(rows, cv2.COLOR_RGB2BGR),
    "bgra8": lambda rows: cv2.cvtColor(rows, cv2.COLOR_BGRA2BGR),
    "rgba8": lambda rows: cv2.cvtColor(rows, cv2.COLOR_RGBA2BGR),
    "mono8": lambda rows: cv2.cvtColor(rows, cv2.COLOR_GRAY2BGR),
    "nv12": lambda rows: cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_NV12),
    "nv21": lambda rows: cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_NV21),
    "yuv422": lambda rows: cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": lambda rows: cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_YUY2),
    # OpenCV names a pattern by its second row's second and third pixel.
    "bayer_rggb8": lambda rows: cv2.cvtColor(rows, cv2.COLOR_BayerBG2BGR),
}


def shape(encoding: str, width: int, height: int) -> tuple[int, ...]:
    """Return the shape of the array that holds a frame."""
    if encoding in ("nv12", "nv21"):
        return (height * 3 // 2, width)
    channels = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "yuv422": 2, "yuv422_yuy2": 2}
    return (height, width, channels[encoding]) if encoding in channels else (height, width)


def milliseconds(ways: list[Callable[[int], Any]], frames: int) -> list[float]:
    """Median processor time of each way, the ways taking turns on frame after frame."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(ROUNDS):
        for number, way in enumerate(ways):
            frame = (turn * len(ways) + number) % frames
            start = time.thread_time()
            way(frame)
            times[number].append(time.thread_time() - start)
    return [float(np.median(t)) * 1e3 for t in times]


def measure(encoding: str, width: int, height: int) -> dict[str, Any]:
    """Milliseconds of a copy, of our way and of the zoo's."""
    size = shape(encoding, width, height)
    count = max(4, int(RING // np.prod(size)))
    source = np.random.default_rng(0).integers(0, 256, (count, *size), dtype=np.uint8)
    messages = [
        SimpleNamespace(
            encoding=encoding,
            width=width,
            height=height,
            step=int(rows.nbytes // rows.shape[0]),
            data=rows.reshape(-1),
        )
        for rows in source
    ]
    out = np.zeros((336, 224), np.uint8)
    copy = np.empty_like(source[0])
    to_bgr = _TO_BGR[encoding]
    copied, ours, hot, zoo = milliseconds(
        [
            lambda i: np.copyto(copy, source[i]),
            lambda i: to_nv12(from_image(messages[i]), out, source_color_range="full"),
            lambda i: to_nv12(from_image(messages[i - 1]), out, source_color_range="full"),
            lambda i: bgr_to_nv12(to_bgr(source[i]), 224, 224),
        ],
        count,
    )
    return {
        "encoding": encoding,
        "size": f"{width}x{height}",
        "copy_ms": copied,
        "ours_ms": ours,
        "hot_ms": hot,
        "zoo_ms": zoo,
    }


def smooth_jpegs(width: int, height: int, count: int) -> list[np.ndarray]:
    """Make JPEGs of quality 85, of smooth pictures with a little noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, height // 20, width // 20, 3), dtype=np.uint8)
    smooth = [cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) for each in coarse]
    noise = random.integers(0, 9, (height, width, 3), dtype=np.uint8)
    return [
        cv2.imencode(".jpg", cv2.add(each, noise), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        for each in smooth
    ]


def measure_jpeg(width: int, height: int) -> dict[str, Any]:
    """Milliseconds with libturbojpeg, with OpenCV alone, and of decoding everything to BGR."""
    jpegs = smooth_jpegs(width, height, 8)
    messages = [SimpleNamespace(data=data.tobytes(), format="jpeg") for data in jpegs]
    out = np.zeros((336, 224), np.uint8)

    def by_opencv(i: int) -> None:
        with mock.patch.object(turbojpeg, "library", return_value=None):
            to_nv12(from_compressed(messages[i]), out)

    ours, opencv, whole = milliseconds(
        [
            lambda i: to_nv12(from_compressed(messages[i]), out),
            by_opencv,
            lambda i: to_nv12(from_array(cv2.imdecode(jpegs[i], cv2.IMREAD_COLOR)), out),
        ],
        len(jpegs),
    )
    return {
        "size": f"{width}x{height}",
        "kilobytes": round(sum(each.size for each in jpegs) / len(jpegs) / 1e3),
        "ours_ms": ours,
        "opencv_ms": opencv,
        "whole_bgr_ms": whole,
    }


def jpegs() -> list[dict[str, Any]]:
    """Measure JPEGs and print the table; returns its rows."""
    cv2.setNumThreads(1)
    print("JPEG to 224x224 NV12, milliseconds, medians, one thread")
    print("      size   KB    ours  OpenCV  all BGR  BGR/ours  four cameras at 30 fps, % of a core")
    rows = [measure_jpeg(*size) for size in SIZES]
    for row in rows:
        print(
            f"{row['size']:>10} {row['kilobytes']:4} {row['ours_ms']:7.2f} {row['opencv_ms']:7.2f} "
            f"{row['whole_bgr_ms']:8.2f} {row['whole_bgr_ms'] / row['ours_ms']:9.2f} "
            f"{12 * row['ours_ms']:8.0f}"
        )
    return rows


def main() -> list[dict[str, Any]]:
    """Run all of it and print the table; returns its rows."""
    cv2.setNumThreads(1)
    print("conversion to 224x224 NV12, milliseconds, medians, one thread")
    print("    encoding       size    copy    ours     hot     zoo  ours/copy  zoo/ours")
    rows = [measure(encoding, *size) for encoding in _TO_BGR for size in SIZES]
    for row in rows:
        print(
            f"{row['encoding']:>12} {row['size']:>10} {row['copy_ms']:7.3f} {row['ours_ms']:7.3f} "
            f"{row['hot_ms']:7.3f} {row['zoo_ms']:7.3f} {row['ours_ms'] / row['copy_ms']:10.2f} "
            f"{row['zoo_ms'] / row['ours_ms']:9.2f}"
        )
    return rows


if __name__ == "__main__":
    main()
    jpegs()
