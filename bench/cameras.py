# SPDX-License-Identifier: Apache-2.0
"""The cost of a frame as cameras send it: the node with default parameters beside the C program on rcl.

The device is emulated and takes no time. What it takes of the processor all the same does not depend on
the camera and is left out; see bench.node.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench import graph, lock
from bench.graph import SMALL, Images
from bench.node import LEAST, OURS, Program, in_c, in_c_with_device, lock_ms, measure
from emulator.board import build, write_model

CAMERAS = (
    (SMALL, 400),
    (Images("bgr8", 640, 480), 200),
    (Images("bgr8", 1280, 720), 60),
    (Images("nv12", 1920, 1080), 60),
    (Images("yuv422_yuy2", 640, 480), 200),
    (Images("jpeg", 640, 480), 100),
    (Images("jpeg", 1920, 1080), 30),
)
"""What is sent, and how many a second."""
SECONDS = 3.0
RUNS = 3  # of which medians are reported


def row(images: Images, rate: float, folder: Path, libdnn: Path, model: Path) -> dict[str, Any]:
    """Return the milliseconds of a frame in each program."""

    def cpu(program: Program) -> float:
        (run,) = measure(program, libdnn, model, [rate], SECONDS, images)
        return run.cpu_ms

    programs = {"c": in_c(folder / "graph.so", images), "ours": OURS}
    if images == SMALL:
        programs |= {"with_device": in_c_with_device(folder / "graph.so", libdnn), "least": LEAST}
    times: dict[str, list[float]] = {name: [] for name in (*programs, "lock")}
    for _ in range(RUNS):
        for name, program in programs.items():
            times[name].append(cpu(program))
        if sys.version_info[:2] <= lock.NEWEST:
            times["lock"].append(lock_ms(OURS, libdnn, model, rate, images))
    return {name: median(values or [float("nan")]) for name, values in times.items()}


def main(wanted: str = "") -> list[dict[str, Any]]:
    """Print the table of the cameras with a word in their description; returns its rows."""
    print(f"a frame's cost by camera, milliseconds; medians of {RUNS}")
    print(f"{'':>24} {'C on rcl':>8} {'node':>6} {'of C':>5} {'lock':>6}")
    rows: list[dict[str, Any]] = []
    device = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            libdnn = build(folder)
            graph.build(folder)
            lock.build(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"not measured, load and device cannot be compiled: {error}")
            return []
        model = write_model(folder / "instant.bin", exclusive_us=0, overhead_us=0)
        for images, rate in CAMERAS:
            if images != SMALL and wanted not in str(images):
                continue
            made = row(images, rate, folder, libdnn, model)
            device = device or made["with_device"] - made["c"]
            own = made["ours"] - device
            rows.append({"camera": str(images), **made, "own": own, "device": device})
            print(
                f"{images!s:>24} {made['c']:8.3f} {own:6.3f} {own / made['c']:5.2f} "
                f"{made['lock']:6.3f}",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
