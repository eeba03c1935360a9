# SPDX-License-Identifier: Apache-2.0
"""The vision_msgs in use, and the package with Foxy's, which has other names for the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.waiting import WAIT
from std_msgs.msg import Header
from vision_msgs.msg import Classification, ObjectHypothesis, VisionInfo

from repghost_ros.engine.results import Result
from repghost_ros.ros import messages

FOXY = Path(sys.prefix) / "foxy"


def test_fields_are_the_published_ones() -> None:
    assert Classification.get_fields_and_field_types() == {
        "header": "std_msgs/Header",
        "results": "sequence<vision_msgs/ObjectHypothesis>",
    }
    assert ObjectHypothesis.get_fields_and_field_types() == {
        "class_id": "string",
        "score": "double",
    }
    assert VisionInfo.get_fields_and_field_types() == {
        "header": "std_msgs/Header",
        "method": "string",
        "database_location": "string",
        "database_version": "int32",
    }


def test_results_go_in_and_come_out() -> None:
    header = Header(frame_id="camera")
    message = messages.classification(header, [Result("stop", 0.75), Result("yield", 0.25)])
    assert message.header == header
    assert messages.results(message) == [Result("stop", 0.75), Result("yield", 0.25)]


PUBLISH_AND_TAKE = """
import rclpy
from std_msgs.msg import Header
from rclpy.qos import QoSProfile
from vision_msgs.msg import Classification2D
from repghost_ros.engine.results import Result
from repghost_ros.engine.results import Result
from repghost_ros.ros import messages

rclpy.init()
node = rclpy.create_node("foxy")
taken = []
node.create_subscription(Classification2D, "classification", taken.append, 10)
publisher = node.create_publisher(messages.Classification, "classification", 10)
while not publisher.get_subscription_count():
    rclpy.spin_once(node, timeout_sec=0.1)
publisher.publish(messages.classification(Header(frame_id="camera"), [Result("stop", 0.75)]))
while not taken:
    rclpy.spin_once(node, timeout_sec=0.1)
(result,) = messages.results(taken[0])
print(taken[0].results[0].id, result.class_id, result.score, taken[0].source_img.width)
"""


@pytest.mark.skipif(not FOXY.is_dir(), reason="Foxy-style messages are built with ROS wheels only")
def test_foxys_messages_are_spoken_too() -> None:
    site = next(FOXY.glob("lib/python3.*/site-packages"))
    ended = subprocess.run(
        [sys.executable, "-c", PUBLISH_AND_TAKE],
        env={
            **os.environ,
            "PYTHONPATH": f"{site}:{Path(__file__).parent.parent}",
            "LD_LIBRARY_PATH": f"{FOXY}/lib:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "AMENT_PREFIX_PATH": f"{FOXY}:{os.environ.get('AMENT_PREFIX_PATH', '')}",
        },
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert ended.stdout.strip() == "stop stop 0.75 0", ended.stderr
