# SPDX-License-Identifier: Apache-2.0
"""Message types without ROS: their names and definitions, and how classifications are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from repghost_ros.engine.results import Result
from repghost_ros.errors import need

INSTALL = "pip install rosbags"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CLASSIFICATION = "vision_msgs/msg/Classification"
CLASSIFICATIONS = (CLASSIFICATION, "vision_msgs/msg/Classification2D")
"""What the node publishes; the latter on Foxy."""
HYPOTHESIS = "vision_msgs/msg/ObjectHypothesis"
DETECTIONS, TARGETS = "vision_msgs/msg/Detection2DArray", "ai_msgs/msg/PerceptionTargets"
"""A detector's boxes; the latter on the RDK."""
_DEFINITIONS = {
    HYPOTHESIS: "string class_id\nfloat64 score\n",
    CLASSIFICATION: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n",
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose\n",
    "vision_msgs/msg/Detection2D": "std_msgs/Header header\n"
    "vision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\nstring id\n",
    DETECTIONS: "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
    "ai_msgs/msg/Perf": "string type\nbuiltin_interfaces/Time stamp_start\n"
    "builtin_interfaces/Time stamp_end\nfloat64 time_ms_duration\n",
    "ai_msgs/msg/Roi": "string type\nsensor_msgs/RegionOfInterest rect\nfloat32 confidence\n",
    "ai_msgs/msg/Attribute": "string type\nfloat32 value\nfloat32 confidence\n",
    "ai_msgs/msg/Point": "string type\ngeometry_msgs/Point32[] point\nfloat32[] confidence\n",
    "ai_msgs/msg/DBResult": "string db_type\nstring match_id\nfloat32 distance\nfloat32 similarity\n",
    "ai_msgs/msg/Capture": "std_msgs/Header header\nsensor_msgs/Image img\nfloat32[] features\n"
    "ai_msgs/DBResult db_result\n",
    "ai_msgs/msg/Target": "string type\nuint64 track_id\nai_msgs/Roi[] rois\n"
    "ai_msgs/Attribute[] attributes\nai_msgs/Point[] points\nai_msgs/Capture[] captures\n",
    TARGETS: "std_msgs/Header header\nint16 fps\nai_msgs/Perf[] perfs\nai_msgs/Target[] targets\n"
    "ai_msgs/Target[] disappeared_targets\n",
}
FOXY_DEFINITIONS = {
    HYPOTHESIS: "string id\nfloat64 score\n",
    CLASSIFICATIONS[1]: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n"
    "sensor_msgs/Image source_img\n",
}


def hypotheses(message: Any) -> tuple[Result, ...]:
    """Return the results in a Classification or Classification2D, best first.

    Args:
        message: from ROS or from a bag; Foxy's hypotheses have `id` instead of `class_id`.

    """
    return tuple(
        Result(result.class_id if hasattr(result, "class_id") else result.id, result.score)
        for result in message.results
    )


def ros2_topics(names: Iterable[str]) -> dict[str, str]:
    """Map topic names to valid ROS 2 names; ROS 1 allows more characters.

    Source: the design article "Topic and Service name mapping to DDS". The mapping is one-to-one.
    """
    mapped: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name != _ros2_topic(name)):  # allowed ones first
        first = allowed = _ros2_topic(name)
        number = 2
        while allowed in mapped.values():
            allowed, number = f"{first}_{number}", number + 1
        mapped[name] = allowed
    return mapped


def _ros2_topic(name: str) -> str:
    tokens = [re.sub("[^A-Za-z0-9_]", "_", token) for token in name.split("/") if token]
    tokens = [f"_{token}" if token[0].isdecimal() else token for token in tokens]
    return ("/" if name.startswith("/") else "") + re.sub("__+", "_", "/".join(tokens))


def typestore(definitions: Mapping[str, str] = _DEFINITIONS, *, ros1: bool = False) -> Any:
    """Return rosbags' type store of ROS 2 or ROS 1, with some vision_msgs by name and definition.

    Raises:
        DependencyError: rosbags is missing.

    """
    typesys = need("rosbags.typesys", INSTALL)
    stores = typesys.Stores
    store = typesys.get_typestore(stores.ROS1_NOETIC if ros1 else stores.ROS2_HUMBLE)
    for name, definition in definitions.items():
        if name not in store.fielddefs:
            store.register(typesys.get_types_from_msg(definition, name))
    return store
