# SPDX-License-Identifier: Apache-2.0
"""The obvious first implementation, as a baseline: vendor sample code in a reentrant callback group.

The frame becomes BGR as cv_bridge makes it, is resized and repacked as the model zoo's samples do, and
goes to pyeasy_dnn, all in one callback served by a MultiThreadedExecutor.
"""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from repghost_ros.engine.results import Result
from repghost_ros.ros import messages
from repghost_ros.ros.process import init, interrupted, shutdown, spin


def to_bgr(message: Image) -> np.ndarray:
    """Return the picture in BGR, as cv_bridge does."""
    data = np.frombuffer(message.data, np.uint8)
    if message.encoding == "nv12":
        rows = data.reshape(message.height * 3 // 2, message.width)
        return cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_NV12)
    return data.reshape(message.height, message.width, 3)


def bgr_to_nv12(bgr: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resized, then repacked by way of I420: flat uint8 (width * height * 3 // 2,)."""
    area = width * height
    i420 = cv2.cvtColor(cv2.resize(bgr, (width, height)), cv2.COLOR_BGR2YUV_I420).reshape(-1)
    nv12 = np.zeros_like(i420)
    nv12[:area] = i420[:area]
    nv12[area:] = i420[area:].reshape(2, -1).transpose(1, 0).reshape(-1)
    return nv12


class BaselineNode(Node):
    """Subscribes, classifies and publishes in one callback."""

    def __init__(self, model_path: str) -> None:
        super().__init__("baseline")
        from hobot_dnn import pyeasy_dnn

        self._model = pyeasy_dnn.load(model_path)[0]
        self._answers = self.create_publisher(messages.Classification, "~/classification", 10)
        self.create_subscription(
            Image,
            "image",
            self._classify,
            qos_profile_sensor_data,
            callback_group=ReentrantCallbackGroup(),
        )

    def _classify(self, message: Image) -> None:
        output = self._model.forward(bgr_to_nv12(to_bgr(message), 224, 224))[0].buffer.reshape(-1)
        exponentials = np.exp(output - output.max())
        scores = exponentials / exponentials.sum()
        best = np.argsort(-scores)[:5]
        results = [Result(str(index), float(scores[index])) for index in best]
        self._answers.publish(messages.classification(message.header, results))


def main() -> None:
    init(None)
    node = BaselineNode(sys.argv[1])
    executor = MultiThreadedExecutor(4)
    executor.add_node(node)
    spin(executor, node.context, interrupted)
    # The last callbacks still publish. rclpy's futures print what those raised once they are collected,
    # which may be when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    executor.shutdown()
    node.destroy_node()
    shutdown()


if __name__ == "__main__":
    main()
