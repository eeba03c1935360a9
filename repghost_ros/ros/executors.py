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
from rclpy.signals import SignalHandlerOptions

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # before Jazzy
    EventsExecutor = SingleThreadedExecutor


_WAKE_UP = 0.1  # seconds until an interrupt is seen at the latest
_interrupts: list[int] = []


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
            executor.spin_once(timeout_sec=_WAKE_UP)
    except (ExternalShutdownException, ShutdownException):
        pass
    except Exception:
        # A signal that shuts the context down may catch rclpy anywhere in the middle of a wait.
        if context.ok():
            raise


def init(args: list[str] | None) -> None:
    """Start ROS such that SIGINT and SIGTERM make `interrupted()` true, and do nothing else.

    rclpy's own handlers would take the context away under the frames in work, and a KeyboardInterrupt
    amid EventsExecutor's C++ would abort the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _interrupts.append(number))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)


def interrupted() -> bool:
    """Whether a signal asked this process to end; see `init`."""
    return bool(_interrupts)


def run(node: Node, done: Callable[[], bool] = lambda: False) -> None:
    """Spin a process's only node until `done()` or an interrupt, then shut ROS down."""
    executor = fastest_executor(node.context)
    executor.add_node(node)
    try:
        spin(executor, node.context, lambda: interrupted() or done())
    finally:
        node.destroy_node()
        shutdown()


def shutdown() -> None:
    """End what `init` began; further interrupts are ignored, the process is about to end."""
    rclpy.try_shutdown()
    # Python itself restores the deadly default on its way out, but for what is ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
