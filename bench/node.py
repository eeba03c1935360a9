# SPDX-License-Identifier: Apache-2.0
"""The node over DDS on the emulated device: throughput against the device's own limit, latency, CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import emulator
from bench.camera import Camera
from emulator.board import Emulator, build, timings, write_model

SECONDS = 5.0
OVERLOAD = 1.1  # frames sent for each that the device can take, so that it never waits for one
RATES = (30, 120, 480)
VENDOR = Path(emulator.__file__).parent / "vendor"


@contextmanager
def process(*command: str, library: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own, interrupted at the end; `env` is added to its environment."""
    environment = {**os.environ, "REPGHOST_LIBDNN": str(library), "PYTHONPATH": str(VENDOR), **env}
    running = subprocess.Popen([sys.executable, *command], env=environment)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(5)
        except subprocess.TimeoutExpired:
            running.kill()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def our_node(model: Path) -> list[str]:
    """The command of this package's node."""
    parameters = {"model_path": str(model), "bpu_runtime": "libdnn", "class_id": "index"}
    parameters["color_range"] = parameters["source_color_range"] = "full"
    arguments = [a for name, value in parameters.items() for a in ("-p", f"{name}:={value}")]
    return ["-m", "repghost_ros.ros.node", "--ros-args", *arguments]


def baseline_node(model: Path) -> list[str]:
    """The command of the node to compare with."""
    return ["-m", "bench.baseline_node", str(model)]


def measure(name: str, command: list[str], library: Path, fps: float) -> dict[str, Any]:
    """One node at one rate: answers a second, latency, CPU per answer."""
    with process(*command, library=library) as running:
        camera = Camera(name)
        camera.wait_for_node()
        before, start = cpu_seconds(running.pid), time.monotonic()
        run = camera.run(fps, SECONDS)
        used, elapsed = cpu_seconds(running.pid) - before, time.monotonic() - start
        camera.close()
    return {
        "sent_fps": fps,
        "fps": run.rate,
        "p50_ms": run.percentile(50),
        "p99_ms": run.percentile(99),
        "cpu_ms": used / elapsed / run.rate * 1e3 if run.latencies else float("nan"),
    }


def main() -> dict[str, Any]:
    """Run all of it and print the tables; returns the figures."""
    results: dict[str, Any] = {"throughput": {}, "latency": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = build(folder)
        emulator = Emulator(library)
        print("throughput, 224x224 NV12 over DDS, emulated device")
        print(
            f"{'size':>5} {'device':>8} {'node':>8} {'ratio':>6} {'CPU ms':>7} "
            f"{'baseline':>8} {'ratio':>6} {'node/baseline':>13}"
        )
        for size in ("100", "111", "130", "150", "200"):
            model = write_model(folder / f"{size}.bin", **timings(size))
            limit = emulator.limit(model)
            ours = measure("repghost", our_node(model), library, limit * OVERLOAD)
            baseline = measure("baseline", baseline_node(model), library, limit * OVERLOAD)
            results["throughput"][size] = {"limit": limit, "ours": ours, "baseline": baseline}
            print(
                f"{size:>5} {limit:8.1f} {ours['fps']:8.1f} {ours['fps'] / limit:6.1%} "
                f"{ours['cpu_ms']:7.2f} {baseline['fps']:8.1f} {baseline['fps'] / limit:6.1%} "
                f"{ours['fps'] / max(baseline['fps'], 1e-9):13.1f}",
                flush=True,
            )
        print("\nlatency from publication to the answer's arrival, size 100")
        print(f"{'sent':>6} {'answered':>9} {'p50 ms':>7} {'p99 ms':>7} {'CPU ms':>7}")
        model = folder / "100.bin"
        for fps in RATES:
            run = measure("repghost", our_node(model), library, fps)
            results["latency"][fps] = run
            print(
                f"{fps:6} {run['fps']:9.1f} {run['p50_ms']:7.2f} {run['p99_ms']:7.2f} "
                f"{run['cpu_ms']:7.2f}",
                flush=True,
            )
    return results


if __name__ == "__main__":
    main()
