# SPDX-License-Identifier: Apache-2.0
"""Forwards the library's Python `logging` to /rosout under the node's name."""

from __future__ import annotations

import logging

from rclpy.node import Node

_LIBRARY = logging.getLogger("repghost_ros")


class ToRosout(logging.Handler):
    """Forwards the library's log to a node's logger until closed.

    Args:
        node: whose logger is told.

    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._logger = node.get_logger()
        _LIBRARY.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; one call per level, because rclpy requires distinct call sites."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        else:
            self._logger.info(message)

    def close(self) -> None:
        """Stop forwarding."""
        _LIBRARY.removeHandler(self)
        super().close()
