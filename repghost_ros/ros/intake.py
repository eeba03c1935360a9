"""Images from the ROS graph, on a thread and an executor of their own.

The subscription lives in a node of its own, as tf2's listener does. So parameter requests, model
loading and lifecycle transitions never hold a frame up, the executor a stack composes the classifier
into does not matter, and on Humble, whose executors walk through every entity of their nodes for each
message, there is just this one to walk through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from repghost_ros.ros.executors import fastest_executor, spin


class Intake:
    """Subscribes on behalf of a node and calls back on a thread of its own until closed.

    Args:
        node: whose name, namespace and context the subscriptions take.
        qos: quality of service of the subscriptions.

    """

    def __init__(self, node: Node, qos: QoSProfile) -> None:
        # The topics are resolved already: global remap rules must not apply a second time.
        self._node = Node(
            f"{node.get_name()}_intake",
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._qos = qos
        self._executor = fastest_executor(node.context)
        self._executor.add_node(self._node)
        self._closing = False
        self._thread = threading.Thread(target=self._spin, name="intake", daemon=True)
        self._thread.start()

    def subscribe(self, message_type: Any, topic: str, callback: Callable[[Any], None]) -> None:
        """Call back with each message of a fully resolved topic; `callback` must return quickly."""
        self._node.create_subscription(message_type, topic, callback, self._qos)

    def _spin(self) -> None:
        spin(self._executor, self._node.context, lambda: self._closing)

    def close(self) -> None:
        """Take no further messages; returns once no callback runs."""
        self._closing = True
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
