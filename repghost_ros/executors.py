"""The fastest executor of the installed distribution, and how to spin it without burning a core."""

from __future__ import annotations

import signal
from collections.abc import Callable

import rclpy
from rclpy.context import Context
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
)
from rclpy.node import Node

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # before Jazzy
    EventsExecutor = SingleThreadedExecutor


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
            # With a finite timeout: Jazzy's EventsExecutor polls at full speed without one.
            executor.spin_once(timeout_sec=1.0)
    except (ExternalShutdownException, ShutdownException):
        pass
    except Exception:
        # A signal that shuts the context down may catch rclpy anywhere in the middle of a wait.
        if context.ok():
            raise


def init(args: list[str] | None) -> None:
    """Start ROS such that interrupts shut its context down, which ends `run`, and raise nothing.

    A KeyboardInterrupt in the middle of EventsExecutor's C++ would abort the process.
    """
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init(args=args)


def run(node: Node, done: Callable[[], bool] = lambda: False) -> None:
    """Spin a process's only node until `done()` or an interrupt, then shut ROS down; see `init`."""
    executor = fastest_executor(node.context)
    executor.add_node(node)
    try:
        spin(executor, node.context, done)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=node.context)
        # Python itself restores the deadly default on its way out, but for what is ignored.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
