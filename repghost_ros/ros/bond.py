# SPDX-License-Identifier: Apache-2.0
"""The bond that shows Nav2's lifecycle manager that the node is alive.

The package bond's protocol, on bond/msg/Status: a status every period; one with `active` false ends it
and is answered with the same. The manager watches us; we do not watch the manager.
"""

from __future__ import annotations

import uuid
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from repghost_ros.errors import need
from repghost_ros.ros.process import wait_for_acknowledgement
from repghost_ros.ros.threads import Heartbeat

_PERIOD = 1.0  # seconds; bond/msg/Constants: DEFAULT_HEARTBEAT_PERIOD
_TIMEOUT = 4.0  # seconds; DEFAULT_HEARTBEAT_TIMEOUT


class Bond:
    """Publishes on the topic `bond` that the node is active, until closed.

    Args:
        node: the publisher; its name is the bond's id, as in Nav2.

    Raises:
        DependencyError: bond's messages are not installed.

    """

    def __init__(self, node: Node) -> None:
        status = need(
            "bond.msg", "install ros-$ROS_DISTRO-bond, or set the manager's bond_timeout to 0.0"
        ).Status
        self._node = node
        self._status = status(
            id=node.get_name(),
            instance_id=str(uuid.uuid4()),
            heartbeat_period=_PERIOD,
            heartbeat_timeout=_TIMEOUT,
        )
        self._publisher = node.create_publisher(status, "bond", QoSProfile(depth=5))
        self._subscription = node.create_subscription(
            status, "bond", self._on_status, QoSProfile(depth=100)
        )
        self._publish(True)
        self._heartbeat = Heartbeat(node.context, _PERIOD, lambda: self._publish(True))

    def _publish(self, active: bool) -> None:
        self._status.header.stamp = self._node.get_clock().now().to_msg()
        self._status.active = active
        self._publisher.publish(self._status)

    def _on_status(self, status: Any) -> None:
        ours = status.instance_id == self._status.instance_id
        if status.id == self._status.id and not ours and not status.active:
            self._heartbeat.close()
            self._publish(False)

    def close(self) -> None:
        """Break the bond; returns once the manager knows, or after half a second."""
        self._heartbeat.close()
        if self._node.context.ok():
            self._publish(False)
            wait_for_acknowledgement(self._publisher)
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)
