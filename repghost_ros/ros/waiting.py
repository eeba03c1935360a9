# SPDX-License-Identifier: Apache-2.0
"""A thread that serves a node's subscriptions or services, whatever its executors are busy with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from rclpy.context import Context


class Waiter(Protocol):
    """A `compat.WaitSet` or an `rcl.Receiver`."""

    def wake(self) -> None:
        """Make its waiting return, from any thread."""

    def close(self) -> None:
        """Release its middleware resources."""


class WaitingThread:
    """Calls back again and again until closed, or until ROS is shut down.

    Args:
        context: the node's.
        waiter: what is waited with; it is closed in the end.
        name: of the thread.
        serve: waits with it, for a limited time, and serves what is ready.

    """

    def __init__(
        self, context: Context, waiter: Waiter, name: str, serve: Callable[[], None]
    ) -> None:
        self._context = context
        self._serve = serve
        self._waiter = waiter
        self.closing = False
        """Whether to serve nothing more."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def wake(self) -> None:
        """Let the wait return at once, from any thread."""
        self._waiter.wake()

    def _run(self) -> None:
        try:
            while not self.closing and self._context.ok():
                self._serve()
        except Exception:
            # A signal that shuts the context down may interrupt rclpy anywhere.
            if self._context.ok() and not self.closing:
                raise

    def close(self) -> None:
        """Serve nothing more; returns once no callback runs."""
        self.closing = True
        self._waiter.wake()
        self._thread.join()
        self._waiter.close()
