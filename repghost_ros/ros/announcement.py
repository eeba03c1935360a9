# SPDX-License-Identifier: Apache-2.0
"""Announces the active model and its class names: latched topics and a parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from vision_msgs.msg import VisionInfo

from repghost_ros.engine.model import Model
from repghost_ros.errors import ParameterError
from repghost_ros.ros import messages
from repghost_ros.ros.compat import QOS_OVERRIDES

LABELS = "class_labels"
"""The parameter whose entry at a class's index is its name."""


def check_labels(parameters: Iterable[Parameter], model: Model | None) -> None:
    """Refuse to set `class_labels` to anything but the model's class names.

    Raises:
        ParameterError: somebody else than the node sets it.

    """
    labels = () if model is None else model.labels
    for parameter in parameters:
        if parameter.name == LABELS and tuple(parameter.value) != labels:
            raise ParameterError(f"parameter '{LABELS}' is set by the node: set labels_path")


class Announcement:
    """Publishes `~/vision_info`, and `~/label_info` if the installed vision_msgs has it.

    Args:
        node: publishes, and declares `class_labels`.

    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._model: Model | None = None
        self._version = 0
        self._vision_info = self._advertise(VisionInfo, "vision_info")
        self._label_info: Any = None
        if messages.LabelInfo is not None:
            self._label_info = self._advertise(messages.LabelInfo, "label_info")

    def _advertise(self, message_type: Any, name: str) -> Any:
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        return self._node.create_lifecycle_publisher(
            message_type,
            f"~/{name}",
            latched,
            qos_overriding_options=QOS_OVERRIDES,
        )

    def announce(self, model: Model, threshold: float) -> None:
        """Announce the active model, unless it is already announced.

        Args:
            model: the model.
            threshold: least probability of a reported class.

        """
        if model is self._model:
            return
        self._model = model
        self._set_labels(list(model.labels))
        header = Header(stamp=self._node.get_clock().now().to_msg())
        location = f"{self._node.get_fully_qualified_name()}/{LABELS}"
        method = f"RepGhost {model.name}"
        self._vision_info.publish(messages.vision_info(header, method, location, self._version))
        if self._label_info is not None:
            self._label_info.publish(messages.label_info(header, model.labels, threshold))

    def _set_labels(self, labels: list[str]) -> None:
        if not self._node.has_parameter(LABELS):
            self._node.declare_parameter(
                LABELS,
                labels,
                ParameterDescriptor(description="Class names in index order; set by the node."),
                ignore_override=True,
            )
        elif list(self._node.get_parameter(LABELS).value) != labels:
            self._version += 1
            self._node.set_parameters([Parameter(LABELS, value=labels)])

    def destroy(self) -> None:
        """Withdraw the topics."""
        for publisher in (self._vision_info, self._label_info):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)
