# SPDX-License-Identifier: Apache-2.0
"""Bags for the tests, written by rosbags from the renderer, so that what each frame shows is known."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from repghost_ros.sources.signs import sequence

WIDTH, HEIGHT = 320, 240
FPS = 20
START_NS = 1_700_000_000_000_000_000
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PLAYABLE = "sqlite3" if os.environ.get("ROS_DISTRO") == "humble" else "mcap"
"""The storage that the distribution's own rosbag2 reads: Humble's has no MCAP unless it is added."""
ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)

Pixels = np.ndarray
Encode = Callable[[Pixels], tuple[str, Pixels, int]]
"""BGR picture to encoding, bytes and step."""


def film(frames: int, seed: int = 4) -> list[tuple[str, Pixels]]:
    """Render labels and BGR pictures, three frames of a sign."""
    return list(islice(sequence(seed, WIDTH, HEIGHT, frames_per_scene=3), frames))


def bgr8(picture: Pixels) -> tuple[str, Pixels, int]:
    return "bgr8", picture, 3 * WIDTH


def rgb8(picture: Pixels) -> tuple[str, Pixels, int]:
    return "rgb8", picture[..., ::-1], 3 * WIDTH


def yuyv(picture: Pixels) -> tuple[str, Pixels, int]:
    y, u, v = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV))
    # Full range; replay assumes the limited one, which changes the contrast but not the sign.
    chroma = np.stack([u[:, ::2], v[:, ::2]], -1).reshape(HEIGHT, WIDTH)
    return "yuv422_yuy2", np.stack([y, chroma], -1), 2 * WIDTH


def stamp_ns(index: int) -> int:
    """Of the header of frame `index`; it is recorded 5 ms later."""
    return START_NS + index * 1_000_000_000 // FPS


def header(store: Any, index: int) -> Any:
    stamp = store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns(index), 1_000_000_000))
    own = (index,) if store is ROS1 else ()
    return store.types["std_msgs/msg/Header"](*own, stamp, "camera")


def image(store: Any, index: int, picture: Pixels, encode: Encode = bgr8) -> Any:
    encoding, pixels, step = encode(picture)
    data = np.ascontiguousarray(pixels).reshape(-1)
    return store.types[IMAGE](header(store, index), HEIGHT, WIDTH, encoding, 0, step, data)


def compressed(store: Any, index: int, picture: Pixels, suffix: str = ".png") -> Any:
    data = np.asarray(cv2.imencode(suffix, picture)[1]).reshape(-1)
    return store.types[COMPRESSED](header(store, index), suffix[1:], data)


def write_ros2(
    path: Path,
    topics: dict[str, list[Any]],
    *,
    storage: str = "mcap",
    compression: str = "none",
    store: Any = ROS2,
    first: int = 0,
) -> Path:
    """Write a ROS 2 bag of messages by topic from frame `first` on, recorded 5 ms after their stamp."""
    writer = Writer2(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        for topic, messages in topics.items():
            kind = messages[0].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=store)
            for index, message in enumerate(messages, first):
                raw = store.serialize_cdr(message, kind)
                writer.write(connection, stamp_ns(index) + 5_000_000, raw)
    return path


def write_ros1(path: Path, topics: dict[str, list[Any]], compression: str = "") -> Path:
    """Write the same as a ROS 1 bag."""
    writer = Writer1(path)
    if compression:
        writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    with writer:
        for topic, messages in topics.items():
            kind = messages[0].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=ROS1)
            for index, message in enumerate(messages):
                raw = ROS1.serialize_ros1(message, kind)
                writer.write(connection, stamp_ns(index) + 5_000_000, raw)
    return path


def sign_bag(path: Path, frames: int = 12, **options: Any) -> Path:
    """Write a ROS 2 bag of bgr8 images on /camera/image_raw."""
    messages = [image(ROS2, i, picture) for i, (_, picture) in enumerate(film(frames))]
    return write_ros2(path, {"/camera/image_raw": messages}, **options)
