# SPDX-License-Identifier: Apache-2.0
"""A thread that serves a node's subscriptions or services, whatever its executors are busy with."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.context import Context

from repghost_ros.ros.compat import WaitSet


class WaitingThread:
    """Calls back again and again until closed, or until ROS is shut down.

    Args:
        context: the node's.
        kind: what is waited for, `subscription` or `service`.
        name: of the thread.
        serve: waits with the wait set, for a limited time, and serves what is ready.

    """

    def __init__(
        self, context: Context, kind: str, name: str, serve: Callable[[WaitSet], None]
    ) -> None:
        self._context = context
        self._serve = serve
        self._wait_set = WaitSet(context, kind)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Let the wait return at once, from any thread."""
        self._wait_set.wake()

    def _run(self) -> None:
        try:
            while not self._closing and self._context.ok():
                self._serve(self._wait_set)
        except Exception:
            # A signal that shuts the context down may interrupt rclpy anywhere.
            if self._context.ok() and not self._closing:
                raise

    def close(self) -> None:
        """Serve nothing more; returns once no callback runs."""
        self._closing = True
        self._wait_set.wake()
        self._thread.join()
        self._wait_set.close()
