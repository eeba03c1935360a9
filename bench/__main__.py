# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every measurement in one run, as tables, a JSON file and a plot."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

from bench import batches, cameras, convert, executors, node, regions, tables
from repghost_ros.ros.isolation import isolate

RESULTS = Path(__file__).parent / "results"


def plot(results: dict[str, Any], path: Path) -> None:
    """Throughput by size, and conversion by encoding at 1920x1080."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    throughput = results["node"]["throughput"]
    sizes = list(throughput)
    for offset, name, values in (
        (-0.27, "emulated device alone", [throughput[s]["limit"] for s in sizes]),
        (0.0, "this node", [throughput[s]["fps"] for s in sizes]),
        (0.27, "the baseline node", [throughput[s].get("baseline_fps", 0) for s in sizes]),
    ):
        left.bar([i + offset for i in range(len(sizes))], values, 0.27, label=name)
    left.set_xticks(range(len(sizes)), sizes)
    left.set(title="answers a second over DDS, emulated device", xlabel="RepGhost size")
    left.legend()
    rows = [row for row in results["convert"] if row["size"] == "1920x1080"]
    places = range(len(rows))
    for offset, name, key in (
        (-0.2, "this package", "ours_ms"),
        (0.2, "model zoo's way", "zoo_ms"),
    ):
        right.barh([i + offset for i in places], [row[key] for row in rows], 0.4, label=name)
    right.plot([row["copy_ms"] for row in rows], places, "k|", ms=14, label="copying the source")
    right.set_yticks(places, [row["encoding"] for row in rows])
    right.invert_yaxis()
    right.set(title="1920x1080 to 224x224 NV12", xlabel="milliseconds")
    right.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure, print, and write bench/results/."""
    isolate()
    start = time.monotonic()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    results: dict[str, Any] = {"convert": convert.main(), "jpeg": convert.jpegs()}
    print()
    results["executors"] = executors.main()
    print()
    results["node"] = node.main()
    print()
    results["cameras"] = cameras.main()
    print()
    results["batches"] = batches.main()
    print()
    results["regions"] = regions.main()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.json").write_text(json.dumps(results, indent=1))
    if results["node"]:
        plot(results, RESULTS / "bench.png")
        print(f"\nfor docs/performance.md:\n\n{tables.markdown(results)}")
    print(f"\nwritten to {RESULTS}; it took {(time.monotonic() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
