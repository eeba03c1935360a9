# SPDX-License-Identifier: Apache-2.0
"""Threads of a node that do their work whatever its executors are busy with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from rclpy.context import Context


class Waiter(Protocol):
    """A `compat.WaitSet` or an `rcl.MessageTaker`."""

    def wake(self) -> None:
        """Make its waiting return, from any thread."""

    def close(self) -> None:
        """Release its middleware resources."""


class WaitingThread:
    """Serves subscriptions or services until closed, or until ROS is shut down.

    Args:
        context: the node's.
        waiter: waits for them; closed with the thread.
        name: name of the thread.
        serve: waits for a limited time and serves what is ready; called again and again.

    """

    def __init__(
        self, context: Context, waiter: Waiter, name: str, serve: Callable[[], None]
    ) -> None:
        self._context = context
        self._serve = serve
        self._waiter = waiter
        self.closing = False
        """True once nothing more is to be served."""
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
