# SPDX-License-Identifier: Apache-2.0
"""One node as a process: it starts ROS, owns the signals, and ends cleanly."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from repghost_ros.errors import ParameterError
from repghost_ros.ros.executors import fastest_executor, spin

_interrupts: list[int] = []
_DISCOVERY = 3.5  # seconds until a listener is known; Fast DDS announces participants every 3 s
_DELIVERY = 0.2  # seconds: rclpy cannot wait until what is on /rosout has arrived


def init(args: list[str] | None) -> None:
    """Start ROS so that SIGINT and SIGTERM only make `interrupted()` true.

    rclpy's own handlers would shut the context down while frames are in flight, and a
    KeyboardInterrupt inside EventsExecutor's C++ code would abort the process.

    Raises:
        ParameterError: rcl refuses the arguments, such as a log level or a file of parameters.

    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _interrupts.append(number))
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's types differ between distributions
        # Its first sentences say it; then come places in rcl's source.
        reason = str(error).strip().partition(", at /")[0].replace("\n", " ")
        raise ParameterError(reason) from error


def start(args: list[str] | None) -> None:
    """`init` for a program: what rcl refuses ends it with one line."""
    try:
        init(args)
    except ParameterError as error:
        sys.exit(f"repghost: {error}")


def interrupted() -> bool:
    """Whether a signal has asked this process to end; see `init`."""
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


def last_words(node: Node, message: str) -> None:
    """Log why the process ends, as FATAL, and wait until those who listen to /rosout have got it."""
    node.get_logger().fatal(message)
    until = time.monotonic() + _DISCOVERY
    while not (node.count_subscribers("/rosout") or interrupted() or time.monotonic() > until):
        time.sleep(_DELIVERY / 10)
    time.sleep(_DELIVERY)
