# SPDX-License-Identifier: Apache-2.0
"""One node as a process: it starts ROS, handles the signals, spins, and ends cleanly."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
)
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from repghost_ros.errors import ParameterError
from repghost_ros.output import open_standard_streams

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # before Jazzy
    EventsExecutor = SingleThreadedExecutor

_interrupts: list[int] = []
_ASK_AGAIN = 0.01  # seconds
_WAKE_UP = 0.25  # seconds until an interrupt is noticed, at most
_DISCOVERY = 3.5  # seconds until a listener is known; Fast DDS announces participants every 3 s
_DELIVERY = 0.2  # seconds: rclpy cannot wait until what is on /rosout has arrived


def init(args: list[str] | None) -> None:
    """Start ROS so that SIGINT and SIGTERM only make `interrupted()` true.

    rclpy's own handlers would shut the context down while frames are in flight, and a
    KeyboardInterrupt inside EventsExecutor's C++ code would abort the process.

    Raises:
        ParameterError: rcl refuses the arguments, such as a log level or a file of parameters.

    """
    open_standard_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _interrupts.append(number))
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's types differ between distributions
        # Its first sentences say why; then come lines of rcl's source.
        reason = str(error).strip().partition(", at /")[0].replace("\n", " ")
        raise ParameterError(reason) from error


def start(args: list[str] | None) -> None:
    """Call `init` for a program: if rcl refuses the arguments, the program ends with one line."""
    try:
        init(args)
    except ParameterError as error:
        sys.exit(f"repghost: {error}")


def interrupted() -> bool:
    """Return whether a signal has asked this process to end; see `init`."""
    return bool(_interrupts)


def fastest_executor(context: Context) -> Executor:
    """Return an EventsExecutor if rclpy has it (Jazzy and later), else a SingleThreadedExecutor.

    A MultiThreadedExecutor with a ReentrantCallbackGroup loses most of a fast stream: see
    docs/adr/0002-an-intake-thread.md.
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
    except Exception as error:
        # A signal that shuts the context down may interrupt rclpy anywhere in a wait, and an
        # EventsExecutor that was shut down calls itself already spinning.
        if context.ok() and "already-spinning" not in str(error):
            raise


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
    """Shut ROS down and ignore further interrupts: the process is about to end."""
    rclpy.try_shutdown()
    # On its way out Python restores the default handlers, except for ignored signals.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def last_words(node: Node, message: str) -> None:
    """Log why the process ends, as FATAL, and wait until the subscribers of /rosout have it."""
    node.get_logger().fatal(message)
    until = time.monotonic() + _DISCOVERY
    while not (node.count_subscribers("/rosout") or interrupted() or time.monotonic() > until):
        time.sleep(_DELIVERY / 10)
    time.sleep(_DELIVERY)


def wait_for_acknowledgement(*publishers: Any, longest: float = 0.5) -> None:
    """Wait until reliable subscribers have the last messages, which destroying a publisher may lose.

    Fast DDS acknowledges once in 3 s, so it is waited for the longest time there. Subscribers get the
    messages much earlier.

    Args:
        publishers: rclpy's; if their context is shut down, nothing can be waited for.
        longest: seconds after which subscribers are given up.

    """
    until = time.monotonic() + longest
    # Not every middleware can tell.
    with suppress(Exception):
        for publisher in publishers:
            # Asked again and again, because rclpy holds Python's lock while it waits.
            while not publisher.wait_for_all_acked(Duration()) and time.monotonic() < until:
                time.sleep(_ASK_AGAIN)
