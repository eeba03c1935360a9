# SPDX-License-Identifier: Apache-2.0
"""A node that configures and activates itself, where no lifecycle manager does."""

from __future__ import annotations

import threading

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import TransitionCallbackReturn

from repghost_ros.engine.backoff import Backoff
from repghost_ros.errors import DownloadError
from repghost_ros.ros.lifecycle import LifecycleNode
from repghost_ros.ros.process import last_words

_RETRY_AFTER = (1.0, 60.0)  # seconds until a failed download is begun again: first and longest
_POLL = 0.05  # seconds until an interrupt is noticed


class Autostart:
    """Configures and activates a node on a thread of its own, as soon as the node is spun.

    Services are answered meanwhile, even during a download. A download that failed is tried again
    with exponential back-off.

    Args:
        node: the node; if somebody else has configured it before it is spun, nothing happens.
        required: give up for good at the first failure, whatever it is.

    """

    def __init__(self, node: LifecycleNode, *, required: bool) -> None:
        self._node = node
        self._required = required
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self.failed = False
        """True once a required start has failed: the process is to end."""
        # Steady time: with use_sim_time there may be no clock yet, or one that jumps.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(0.0, self._begin, clock=steady)

    def _begin(self) -> None:
        self._timer.cancel()
        if self._node.is_unconfigured:
            self._thread = threading.Thread(target=self._start, name="autostart", daemon=True)
            self._thread.start()

    def _start(self) -> None:
        backoff = Backoff(*_RETRY_AFTER)
        while not self._node.is_ending:
            self._error = None
            configured = self._node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            if configured and self._node.trigger_activate() == TransitionCallbackReturn.SUCCESS:
                return
            if self._required:
                self.failed = True
                return
            if not isinstance(self._error, DownloadError):
                return
            delay = backoff.delay()
            self._node.get_logger().warning(f"downloading again in {delay:.0f} s")
            while delay > 0 and not self._node.is_ending:
                self._node.pause(_POLL)
                delay -= _POLL

    def report_failure(self, error: Exception) -> bool:
        """Note why a transition failed; return whether it was logged as the end of the process."""
        if self._thread is not threading.current_thread():
            return False
        self._error = error
        if self._required:
            last_words(self._node, str(error))
        return self._required

    def close(self) -> None:
        """Return once the thread has ended; the node is ending."""
        if self._thread is not None:
            self._thread.join()
