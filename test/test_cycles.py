# SPDX-License-Identifier: Apache-2.0
"""Up and down, again and again: nothing is left behind, whatever is destroyed first.

REPGHOST_CYCLES is the number of cycles; `make soak` runs a thousand.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, permutations
from pathlib import Path
from typing import Any

import pytest
from helpers.graph import RELIABLE, Robot, image, sign, wait_until
from helpers.waiting import WAIT
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from repghost_ros.ros.node import ClassifierNode
from repghost_ros.ros.process import fastest_executor, spin

CYCLES = int(os.environ.get("REPGHOST_CYCLES", "20"))
WARM_UP = 10
"""Cycles until caches, pools and lazily loaded libraries are there."""
GROWTH = 4 << 20
"""Bytes that the allocated memory may vary by: frames in flight, and their buffers."""
GROWTH_A_CYCLE = 16 << 10
"""Bytes a cycle beyond that. Measured over a thousand on a PC, Jazzy with Fast DDS: 4.2 KB. rclpy alone
keeps 1.8 KB where as many entities are created and destroyed: a callback group holds a weak reference
to everything that was ever in it.

Resident memory tells no leak: glibc gives every thread an arena, 16 on two cores, and the workers'
buffers leave holes in them. It rose from 246 to 342 MB over those cycles, and malloc_trim brought it
back to 246; with MALLOC_ARENA_MAX=1 it did not rise.
"""


class _MallInfo(ctypes.Structure):
    """struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def make_node(context: Context, *, autostart: bool) -> ClassifierNode:
    overrides = [Parameter("model", value="demo"), Parameter("autostart", value=autostart)]
    return ClassifierNode(context=context, parameter_overrides=overrides)


def held() -> dict[str, int]:
    """Count this process's kernel threads, descriptors, shared-memory maps."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "shared memory": maps.count("/dev/shm/"),
    }


def allocated() -> int:
    """Bytes that are allocated and not freed, in all of malloc's arenas and maps."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _MallInfo
    gc.collect()
    info = mallinfo()
    return info.uordblks + info.hblkhd


@pytest.fixture
def filmed() -> Iterator[Robot]:
    """Run a robot whose camera never pauses."""
    robot = Robot()
    publisher = robot.node.create_publisher(Image, "image", RELIABLE)
    stamps, ending = count(1), threading.Event()
    picture = sign("stop")

    def film() -> None:
        while not ending.wait(0.01):
            publisher.publish(image(picture, stamp=next(stamps)))

    thread = threading.Thread(target=film)
    thread.start()
    yield robot
    ending.set()
    thread.join()
    robot.close()


def test_nothing_is_left_after_many_cycles(filmed: Robot) -> None:
    node = make_node(filmed.context, autostart=False)
    cycle: list[Callable[[], TransitionCallbackReturn]] = [
        *(node.trigger_configure, node.trigger_activate),
        *(node.trigger_deactivate, node.trigger_cleanup),
    ]
    before, memory = {}, 0
    for number in range(WARM_UP + CYCLES):
        if number == WARM_UP:
            before, memory = held(), allocated()
        for transition in cycle:
            assert transition() == TransitionCallbackReturn.SUCCESS
            if transition == node.trigger_activate:
                wait_until(lambda: filmed.classifications, "an answer")
        filmed.classifications.clear()
    # What the middleware gives back, it gives back a moment later.
    wait_until(lambda: held() == before, f"{before}, not {held()}")
    assert allocated() - memory < GROWTH + CYCLES * GROWTH_A_CYCLE
    node.destroy_node()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("order", list(permutations(["node", "executor", "context"])), ids="-".join)
def test_the_node_is_destroyed_in_any_order_and_twice(order: tuple[str, ...]) -> None:
    """While it is being spun, and frames are on their way."""
    before = threading.active_count()
    context = Context()
    context.init()
    robot = Robot()
    node = make_node(context, autostart=True)
    executor = fastest_executor(context)
    executor.add_node(node)
    spinning = threading.Thread(target=spin, args=(executor, context))
    spinning.start()
    publisher = robot.publisher()
    assert robot.answer(publisher, image(sign("stop"), stamp=1)).results
    for stamp in range(2, 30):
        publisher.publish(image(sign("stop"), stamp=stamp))
    destroy: dict[str, Callable[[], Any]] = {
        "node": node.destroy_node,
        "executor": executor.shutdown,
        "context": context.try_shutdown,
    }
    for name in (*order, "node"):
        destroy[name]()
    spinning.join(WAIT)
    assert not spinning.is_alive()
    wait_until(lambda: "repghost" not in robot.node.get_node_names(), "the node to leave the graph")
    robot.close()
    until = time.monotonic() + WAIT
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() <= before
