# SPDX-License-Identifier: Apache-2.0
"""Cost of rclpy's executors: frames received from a 2000 fps stream, and CPU time per frame."""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from typing import Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from repghost_ros.ros.process import fastest_executor, spin

FPS, SECONDS = 2000, 5.0


def take(kind: str, ready: Any, done: Any, answers: Any) -> None:
    """Count the frames of `image` that one executor takes, in a process of its own."""
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("taker", context=context)
    reentrant = kind == "MultiThreadedExecutor"
    group = ReentrantCallbackGroup() if reentrant else MutuallyExclusiveCallbackGroup()
    taken: list[None] = []
    node.create_subscription(
        Image, "image", lambda m: taken.append(None), qos_profile_sensor_data, callback_group=group
    )
    if kind == "fastest":
        executor = fastest_executor(context)
    elif reentrant:
        executor = MultiThreadedExecutor(4, context=context)
    else:
        executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=spin, args=(executor, context, done.is_set))
    spinning.start()
    ready.set()
    before = resource.getrusage(resource.RUSAGE_SELF)
    done.wait()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    answers.put((len(taken), cpu))
    spinning.join()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def measure(kind: str) -> dict[str, Any]:
    """Frames sent and received, and CPU milliseconds per received frame."""
    spawn = multiprocessing.get_context("spawn")
    ready, done, answers = spawn.Event(), spawn.Event(), spawn.Queue()
    process = spawn.Process(target=take, args=(kind, ready, done, answers), daemon=True)
    process.start()
    ready.wait()
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("sender", context=context)
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    image = Image(encoding="nv12", width=224, height=224, step=224, data=bytes(224 * 336))
    start, sent = time.monotonic(), 0
    while (now := time.monotonic() - start) < SECONDS:
        if now < sent / FPS:
            time.sleep(sent / FPS - now)
        publisher.publish(image)
        sent += 1
    time.sleep(0.2)
    done.set()
    taken, cpu = answers.get()
    process.join()
    node.destroy_node()
    context.try_shutdown()
    return {"executor": kind, "sent": sent, "taken": taken, "cpu_ms": cpu / max(1, taken) * 1e3}


def main() -> list[dict[str, Any]]:
    """Run all of it and print the table; returns its rows."""
    print(f"224x224 NV12 at {FPS} fps for {SECONDS:.0f} s: frames taken")
    rows = [measure(k) for k in ("fastest", "SingleThreadedExecutor", "MultiThreadedExecutor")]
    for row in rows:
        share = row["taken"] / row["sent"]
        print(
            f"{row['executor']:>24} {row['taken']:6} of {row['sent']:6} ({share:6.1%}) "
            f"{row['cpu_ms']:7.3f} ms CPU each"
        )
    return rows


if __name__ == "__main__":
    main()
