# SPDX-License-Identifier: Apache-2.0
"""Results -> vision_msgs, in the layout of the installed distribution."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import ObjectHypothesis, VisionInfo

from repghost_ros.engine.results import Result
from repghost_ros.sources.types import hypotheses
from repghost_ros.vision.cdr import Serialized

try:
    from vision_msgs.msg import Classification
except ImportError:  # Foxy, before Galactic renamed it
    from vision_msgs.msg import Classification2D as Classification

_LITTLE_ENDIAN = b"\x00\x01\x00\x00"  # CDR's encapsulation header
_DOUBLE = struct.Struct("<d")
try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # Humble's may be older than vision_msgs 4.1
    LabelInfo = VisionClass = None

_CLASS_ID = "class_id" if hasattr(ObjectHypothesis, "class_id") else "id"  # Foxy's name


def classification(header: Header, results: Iterable[Result]) -> Any:
    """Return a Classification (Foxy: Classification2D) for the image with this header.

    Args:
        header: the image's header, passed on unchanged.
        results: best first.

    """
    message = Classification()
    message.header = header
    message.results = [
        ObjectHypothesis(**{_CLASS_ID: result.class_id, "score": result.score})
        for result in results
    ]
    return message


def serialized_classification(image: Serialized, results: Iterable[Result]) -> Any:
    """Return a serialized Classification for an image; on Foxy the message.

    Serialized here, because rclpy takes longer to make the message than to publish it.
    """
    if _CLASS_ID != "class_id":  # Foxy's has further fields
        return classification(header(image), results)
    out = bytearray(_LITTLE_ENDIAN + image.serialized_header)
    results = tuple(results)
    _align(out, 4)
    out += len(results).to_bytes(4, "little")
    for result in results:
        _align(out, 4)
        out += _text(result.class_id)
        _align(out, 8)
        out += _DOUBLE.pack(result.score)
    return bytes(out)


def _align(out: bytearray, size: int) -> None:
    out += bytes(-(len(out) - len(_LITTLE_ENDIAN)) % size)


@lru_cache(4096)
def _text(text: str) -> bytes:
    encoded = text.encode() + b"\0"
    return len(encoded).to_bytes(4, "little") + encoded


def header(image: Serialized) -> Header:
    """Return the header of an image as a message."""
    stamp, frame_id = image.header
    return Header(stamp=Time(sec=stamp.sec, nanosec=stamp.nanosec), frame_id=frame_id)


def results(message: Any) -> list[Result]:
    """Return the results in a Classification or Classification2D, best first."""
    return list(hypotheses(message))


def vision_info(
    header: Header, method: str, database_location: str, database_version: int = 0
) -> VisionInfo:
    """Return a VisionInfo: the classifier, and the parameter that holds its class labels.

    Args:
        header: the time of the message.
        method: the model in words, such as `RepGhost 150`.
        database_location: full name of the parameter that lists the labels in class order.
        database_version: incremented when the labels change.

    """
    message = VisionInfo()
    message.header = header
    message.method = method
    message.database_location = database_location
    message.database_version = database_version
    return message


def label_info(header: Header, labels: Iterable[str], threshold: float) -> Any:
    """Return a LabelInfo of class names in index order; `threshold` is the least score reported."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(labels)]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)


def image(header: Header, picture: np.ndarray, encoding: str = "rgb8") -> Image:
    """Return an Image of a uint8 (height, width, 3) picture, `rgb8` or `bgr8`."""
    height, width, _ = picture.shape
    message = Image(header=header, encoding=encoding, height=height, width=width, step=width * 3)
    # array.array is what the message holds: anything else is checked byte by byte in Python.
    message.data = array("B", picture.tobytes())
    return message


def compressed_image(header: Header, picture: np.ndarray) -> CompressedImage:
    """Return a JPEG CompressedImage of a uint8 (height, width, 3) rgb8 picture."""
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = array("B", jpeg.tobytes())
    return message
