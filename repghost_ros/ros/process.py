# SPDX-License-Identifier: Apache-2.0
"""One node as a process: it starts ROS, owns the signals, and ends cleanly."""

from __future__ import annotations

import signal
from collections.abc import Callable

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from repghost_ros.ros.executors import fastest_executor, spin

_interrupts: list[int] = []


def init(args: list[str] | None) -> None:
    """Start ROS so that SIGINT and SIGTERM only make `interrupted()` true.

    rclpy's own handlers would shut the context down while frames are in flight, and a
    KeyboardInterrupt inside EventsExecutor's C++ code would abort the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: _interrupts.append(number))
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)


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
