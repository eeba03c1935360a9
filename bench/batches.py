# SPDX-License-Identifier: Apache-2.0
"""The node over DDS with several cameras: one frame an inference against batches of four, size 100."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.camera import Camera
from bench.graph import process
from bench.node import environment, our_node
from emulator.board import build, fused_timings, timings, write_model

FPS = 30.0
CAMERAS = (1, 2, 4, 8)
OVERLOAD = (4, 700.0)
"""Cameras and frames a second of each, together 18 % more than batches of four can take."""
SECONDS = 5.0


def models(folder: Path) -> dict[str, Path]:
    """The models to compare; the last file holds two, and a lone frame takes the small one."""
    alone, four = fused_timings(1), fused_timings(4)
    return {
        "published": write_model(folder / "published.bin", **timings("100")),
        "fused": write_model(folder / "fused.bin", **alone),
        "fused, batches": write_model(folder / "batches.bin", {"name": "four", **four}, **alone),
    }


def measure(model: Path, library: Path, stats: Path, cameras: int, fps: float) -> dict[str, Any]:
    """One node with cameras that send at the same moment: answers, latency, device time."""
    names = [f"camera_{number}" for number in range(cameras)]
    command = [*our_node(model), "-p", f"cameras:=[{', '.join(names)}]"]
    with process(command, env={**environment(library), "REPGHOST_EMU_STATS": str(stats)}):
        camera = Camera("repghost", names=names)
        camera.wait_for_node()
        run = camera.run(fps, SECONDS)
        camera.close()
    left = dict(line.split() for line in stats.read_text().splitlines())
    return {
        "cameras": cameras,
        "sent_fps": run.sent / SECONDS,
        "fps": run.rate,
        "p50_ms": run.percentile(50),
        "p99_ms": run.percentile(99),
        "device_us": int(left["busy_ns"]) / 1e3 / camera.answered,
        "inferences_per_frame": int(left["inferences"]) / camera.answered,
    }


def main() -> dict[str, Any]:
    """Run all of it and print the table; returns the figures."""
    results: dict[str, Any] = {}
    published_us = timings("100")["exclusive_us"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = build(folder)
        print("several cameras, 224x224 NV12 over DDS, emulated device, size 100")
        print(
            f"{'':>15} {'cameras':>7} {'sent':>6} {'answered':>8} {'p50 ms':>7} {'p99 ms':>7} "
            f"{'device us a frame':>17} {'of published':>12}"
        )
        for cameras, fps in (*((cameras, FPS) for cameras in CAMERAS), OVERLOAD):
            for name, model in models(folder).items():
                run = measure(model, library, folder / "stats", cameras, fps)
                results.setdefault(name, []).append(run)
                print(
                    f"{name:>15} {cameras:7} {run['sent_fps']:6.0f} {run['fps']:8.1f} "
                    f"{run['p50_ms']:7.2f} {run['p99_ms']:7.2f} {run['device_us']:17.0f} "
                    f"{run['device_us'] / published_us:12.2f}",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    main()
