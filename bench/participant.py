# SPDX-License-Identifier: Apache-2.0
"""A node of the bench's own process, which plays the robot around the node that is measured."""

from __future__ import annotations

import threading

import rclpy

from repghost_ros.ros.process import fastest_executor, spin


class Participant:
    """A node with a context of its own; a thread executes its callbacks from `start` until `close`.

    Args:
        name: of the node.

    """

    def __init__(self, name: str) -> None:
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node(name, context=self._context)
        self._executor = fastest_executor(self._context)
        self._executor.add_node(self._node)
        self._closing = False
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self._context, lambda: self._closing)
        )

    def start(self) -> None:
        """Execute callbacks from now on."""
        self._thread.start()

    def close(self) -> None:
        """Leave the graph."""
        self._closing = True
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()
