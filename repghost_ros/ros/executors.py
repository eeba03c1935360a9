# SPDX-License-Identifier: Apache-2.0
"""The fastest executor of the installed distribution, and how to spin it without using a whole core."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.context import Context
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
)

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # before Jazzy
    EventsExecutor = SingleThreadedExecutor


_WAKE_UP = 0.1  # seconds until an interrupt is noticed, at most


def fastest_executor(context: Context) -> Executor:
    """EventsExecutor where rclpy has it (Jazzy and later), else SingleThreadedExecutor.

    A MultiThreadedExecutor with a ReentrantCallbackGroup takes only a few percent of a fast stream:
    see bench/.
    """
    executor: Executor = EventsExecutor(context=context)
    return executor


def spin(executor: Executor, context: Context, done: Callable[[], bool] = lambda: False) -> None:
    """Execute callbacks until `done()` or the executor or its context is shut down."""
    try:
        while context.ok() and not done():
            # With a finite timeout, because Jazzy's EventsExecutor busy-polls without one.
            executor.spin_once(timeout_sec=_WAKE_UP)
    except (ExternalShutdownException, ShutdownException):
        pass
    except Exception:
        # A signal that shuts the context down may interrupt rclpy anywhere in a wait.
        if context.ok():
            raise
