# SPDX-License-Identifier: Apache-2.0
"""A periodic call on its own thread, however busy the executors are."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.context import Context


class Heartbeat:
    """Calls back until closed or until ROS is shut down.

    In steady time: with use_sim_time there may be no clock yet, or one that jumps. It is not a timer
    of the node, which would have to wait for the executor.

    Args:
        context: the node's.
        period: seconds between two calls.
        callback: called first after one period.

    """

    def __init__(self, context: Context, period: float, callback: Callable[[], None]) -> None:
        self._context = context
        self._period = period
        self._callback = callback
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._closing.wait(self._period) and self._context.ok():
            try:
                self._callback()
            except Exception:
                # A signal may shut the context down during a call.
                if self._context.ok():
                    raise

    def close(self) -> None:
        """Stop; returns once no call is running."""
        self._closing.set()
        self._thread.join()
