"""Message types without ROS: their names and definitions, and how classifications are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repghost_ros.errors import need
from repghost_ros.results import Result

INSTALL = "pip install rosbags"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CLASSIFICATION = "vision_msgs/msg/Classification"
CLASSIFICATIONS = (CLASSIFICATION, "vision_msgs/msg/Classification2D")
"""What the node publishes; the latter on Foxy."""
HYPOTHESIS = "vision_msgs/msg/ObjectHypothesis"
_DEFINITIONS = {
    HYPOTHESIS: "string class_id\nfloat64 score\n",
    CLASSIFICATION: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n",
}
FOXY_DEFINITIONS = {
    HYPOTHESIS: "string id\nfloat64 score\n",
    CLASSIFICATIONS[1]: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n"
    "sensor_msgs/Image source_img\n",
}


def hypotheses(message: Any) -> tuple[Result, ...]:
    """The results in a Classification or Classification2D, best first.

    Args:
        message: of ROS or of a bag; Foxy's hypotheses have `id` where later ones have `class_id`.

    """
    return tuple(
        Result(each.class_id if hasattr(each, "class_id") else each.id, each.score)
        for each in message.results
    )


def typestore(definitions: Mapping[str, str] = _DEFINITIONS, *, ros1: bool = False) -> Any:
    """The rosbags type store of ROS 2 or ROS 1, with some vision_msgs by name and definition.

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
