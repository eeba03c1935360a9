"""Scores -> vision_msgs, in the shape the installed distribution has."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import ObjectHypothesis, VisionInfo

from repghost_ros.results import Result
from repghost_ros.sources.types import hypotheses

try:
    from vision_msgs.msg import Classification
except ImportError:  # Foxy, before Galactic renamed it
    from vision_msgs.msg import Classification2D as Classification

_CLASS_ID = "class_id" if hasattr(ObjectHypothesis, "class_id") else "id"  # Foxy's name


def classification(header: Header, results: Iterable[Result]) -> Any:
    """A Classification (Foxy: Classification2D) of the image with this header.

    Args:
        header: the image's header, passed on untouched.
        results: best first.

    """
    message = Classification()
    message.header = header
    message.results = [
        ObjectHypothesis(**{_CLASS_ID: result.class_id, "score": result.score})
        for result in results
    ]
    return message


def results(message: Any) -> list[Result]:
    """The results in a Classification or Classification2D, best first."""
    return list(hypotheses(message))


def vision_info(header: Header, method: str, database_location: str) -> VisionInfo:
    """What the classifier is and which parameter holds its class labels.

    Args:
        header: the time of the message.
        method: the model in words, such as `RepGhost 150`.
        database_location: full name of the parameter that lists the labels in class order.

    """
    message = VisionInfo()
    message.header = header
    message.method = method
    message.database_location = database_location
    return message


def image(header: Header, picture: np.ndarray, encoding: str = "rgb8") -> Image:
    """An Image of a uint8 (height, width, 3) picture, `rgb8` or `bgr8`."""
    height, width, _ = picture.shape
    message = Image(header=header, encoding=encoding, height=height, width=width, step=width * 3)
    # array.array is what the message holds: anything else is checked byte by byte in Python.
    message.data = array("B", picture.tobytes())
    return message
