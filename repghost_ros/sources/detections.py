# SPDX-License-Identifier: Apache-2.0
"""The boxes in a detector's messages, from ROS or from a bag."""

from __future__ import annotations

from typing import Any

from repghost_ros.sources.types import DETECTIONS
from repghost_ros.vision.boxes import Box


def message_boxes(message: Any, message_type: str) -> list[Box]:
    """Return every box of a message, in its order.

    Args:
        message: a Detection2DArray or PerceptionTargets.
        message_type: its type, one of `types.DETECTIONS` or `types.TARGETS`.

    """
    if message_type == DETECTIONS:
        return [detection_box(detection) for detection in message.detections]
    return [target_box(target) for target in message.targets]


def detection_box(detection: Any) -> Box:
    """Return a vision_msgs/Detection2D's box, with the class of its best hypothesis."""
    hypotheses = (result.hypothesis for result in detection.results)
    found = max(hypotheses, key=lambda hypothesis: hypothesis.score, default=None)
    center, box = detection.bbox.center, detection.bbox
    return Box(
        x=center.position.x,
        y=center.position.y,
        width=box.size_x,
        height=box.size_y,
        theta=center.theta,
        class_id="" if found is None else found.class_id,
        score=0.0 if found is None else found.score,
        id=detection.id,
    )


def target_box(target: Any) -> Box:
    """Return an ai_msgs/Target's first region, the whole object; an empty box where it has none."""
    if not target.rois:
        return Box(0.0, 0.0, 0.0, 0.0, class_id=target.type)
    rect = target.rois[0].rect
    return Box(
        x=rect.x_offset + rect.width / 2,
        y=rect.y_offset + rect.height / 2,
        width=rect.width,
        height=rect.height,
        class_id=target.rois[0].type or target.type,
        score=target.rois[0].confidence,
        id=str(target.track_id or ""),
    )
