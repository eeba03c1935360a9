# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.fleet`: bags a minute by workers, measured on this machine and simulated beyond it.

Measured: a fleet of one and of two processes over the same bags; what a part costs a worker and what
its answers cost the one process that writes. Simulated from these two costs: a pool of workers without
any other cost, which shows where the writer becomes the limit.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from repghost_ros.engine.model import ModelSpec
from repghost_ros.runs.answers import open_results, read_results
from repghost_ros.runs.fleet import LocalFleet
from repghost_ros.runs.many import find_bags, replay_many
from repghost_ros.runs.replay import ReplayOptions
from repghost_ros.sources.signs import sequence

BAGS, FRAMES = 8, 500
WIDTH, HEIGHT = 320, 240
IMAGE = "sensor_msgs/msg/Image"


def write_bags(folder: Path) -> None:
    """Bags of road signs, bgr8."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types: Any = store.types
    film = [picture for _, picture in islice(sequence(1, WIDTH, HEIGHT, frames_per_scene=5), 100)]
    for bag in range(BAGS):
        path = folder / f"bag{bag}"
        with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            connection = writer.add_connection("/image", IMAGE, typestore=store)
            for number in range(FRAMES):
                stamp = types["builtin_interfaces/msg/Time"](number, 0)
                header = types["std_msgs/msg/Header"](stamp, "camera")
                data = np.ascontiguousarray(film[number % len(film)]).reshape(-1)
                image = types[IMAGE](header, HEIGHT, WIDTH, "bgr8", 0, 3 * WIDTH, data)
                writer.write(connection, number * 10**9, store.serialize_cdr(image, IMAGE))


def main() -> int:
    """Measure, simulate, print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_bags(folder / "bags")
        bags = find_bags([str(folder / "bags")])
        print(f"{BAGS} bags of {FRAMES} frames, {WIDTH}x{HEIGHT} bgr8, demo model, this machine")
        print(f"{'workers':>8} {'bags/min':>9} {'frames/s':>9}")
        seconds = {}
        for workers in (1, 2):
            fleet = LocalFleet(workers)
            try:
                # The workers start and open the model.
                replay_many(
                    bags[:1], folder / f"warm{workers}", ModelSpec("demo"), fleet, ReplayOptions()
                )
                start = time.perf_counter()
                replay_many(
                    bags, folder / f"out{workers}", ModelSpec("demo"), fleet, ReplayOptions()
                )
                seconds[workers] = time.perf_counter() - start
            finally:
                fleet.close()
            rate = 60 * BAGS / seconds[workers]
            print(f"{workers:8} {rate:9.1f} {rate * FRAMES / 60:9.0f}")
        answers = read_results(folder / "out1" / "bag0.jsonl")
        start = time.perf_counter()
        with open_results(folder / "again.jsonl") as write:
            for answer in answers:
                write(answer)
        writing = (time.perf_counter() - start) / FRAMES
        working = seconds[1] / BAGS / FRAMES
    print(
        f"\na frame costs a worker {working * 1e3:.2f} ms and the writer {writing * 1e3:.3f} ms\n"
        "simulated from these, workers on machines of their own:"
    )
    for workers in (4, 16, 50, 100):
        rate = min(workers / working, 1 / writing)
        limit = "the writer" if rate < workers / working else "the workers"
        print(f"{workers:8} {60 * rate / FRAMES:9.0f} {rate:9.0f}  limited by {limit}")
    print(
        f"the writer is the limit from {working / writing:.0f} workers on; storage has to deliver "
        f"{WIDTH * HEIGHT * 3 / working / 1e6:.0f} MB/s for each worker"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
