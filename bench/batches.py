# SPDX-License-Identifier: Apache-2.0
"""The node over DDS with several cameras: single frames against batches of four."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.camera import Camera
from bench.graph import SMALL, process
from bench.node import environment, our_node
from emulator.board import build, fused_timings, timings, write_model

FPS = 30.0
CAMERAS = (1, 2, 4, 8)
RUNS = (*(("100", cameras, FPS) for cameras in CAMERAS), ("100", 4, 700.0), ("150", 4, 450.0))
"""Size, cameras and frames a second of each; the last are 18 % more than batches of four can take."""
SECONDS = 5.0


def models(folder: Path, size: str) -> dict[str, Path]:
    """Write the models to compare; the last file holds two, the smaller one for a lone frame."""
    alone, four = fused_timings(1, size), fused_timings(4, size)
    return {
        "published": write_model(folder / "published.bin", **timings(size)),
        "fused": write_model(folder / "fused.bin", **alone),
        "fused, batches": write_model(folder / "batches.bin", {"name": "four", **four}, **alone),
    }


def measure(model: Path, library: Path, stats: Path, cameras: int, fps: float) -> dict[str, Any]:
    """One node with cameras that send at the same moment: answers, latency, device time."""
    names = [f"camera_{number}" for number in range(cameras)]
    command = [*our_node(model), "-p", f"cameras:=[{', '.join(names)}]"]
    with process(command, env={**environment(library), "REPGHOST_EMU_STATS": str(stats)}):
        camera = Camera("repghost", cameras=dict.fromkeys(names, SMALL))
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
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = build(folder)
        print("several cameras, 224x224 NV12 over DDS, emulated device")
        print(
            f"{'size':>4} {'':>15} {'cameras':>7} {'sent':>6} {'answered':>8} {'p50 ms':>7} "
            f"{'p99 ms':>7} {'device us a frame':>17} {'of published':>12}"
        )
        for size, cameras, fps in RUNS:
            published_us = timings(size)["exclusive_us"]
            for name, model in models(folder, size).items():
                run = measure(model, library, folder / "stats", cameras, fps)
                results.setdefault(name, []).append({"size": size, **run})
                print(
                    f"{size:>4} {name:>15} {cameras:7} {run['sent_fps']:6.0f} {run['fps']:8.1f} "
                    f"{run['p50_ms']:7.2f} {run['p99_ms']:7.2f} {run['device_us']:17.0f} "
                    f"{run['device_us'] / published_us:12.2f}",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    main()
