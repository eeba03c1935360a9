# SPDX-License-Identifier: Apache-2.0
"""What the library logs with Python's `logging` reaches /rosout under the node's name."""

from __future__ import annotations

import logging

from rclpy.node import Node

_LIBRARY = logging.getLogger("repghost_ros")


class ToRosout(logging.Handler):
    """Passes the library's log on to a node's logger, until closed.

    Args:
        node: whose logger is told.

    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._logger = node.get_logger()
        _LIBRARY.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; on one line for each level, for rclpy wants it so."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        else:
            self._logger.info(message)

    def close(self) -> None:
        """Pass nothing on any more."""
        _LIBRARY.removeHandler(self)
        super().close()
