# SPDX-License-Identifier: Apache-2.0
"""The node's figures as the tables of docs/performance.md."""

from __future__ import annotations

from typing import Any

from bench.cameras import RUNS as CAMERA_RUNS
from bench.node import BOARD, CAMERA_RATE, COST_RATE, IN_C, OVERLOAD, RUNS


def _table(*rows: list[str]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])


def cost(figures: dict[str, Any]) -> str:
    """Processor time and lock of a frame."""
    least = figures[IN_C]["cpu_ms"]
    head = ["", "CPU ms", "less the device's", "of C's", "lock ms"]
    estimates = [f"board estimate: {what}" for what in ("CPU ms", "lock ms")]
    rows = [[*head, *estimates, "fps that the lock allows"]]
    for name, row in figures.items():
        own, held = row["own_ms"], row["lock_ms"]
        tells = held == held
        rows.append(
            [
                name,
                *(f"{row['cpu_ms']:.2f}", f"{own:.2f}", f"{own / least:.1f}"),
                f"{held:.2f}" if tells else "-",
                f"{BOARD * own:.2f}",
                f"{BOARD * held:.2f}" if tells else "-",
                f"{row['board_fps']:.0f}" if tells else "-",
            ]
        )
    return _table(*rows)


def overload(figures: dict[str, Any]) -> str:
    """Answers per second at rising load."""
    rates = next(iter(figures.values()))
    rows = [["sent", *map(str, rates), "at the most / peak"]]
    for name, row in figures.items():
        answered = list(row.values())
        share = f"{answered[-1] / max(answered):.0%}"
        rows.append([name, *(f"{rate:.0f}" for rate in answered), share])
    return _table(*rows)


def throughput(figures: dict[str, Any]) -> str:
    """Return the table of the share of a model's device speed that the node reaches."""
    head = ["model", "device alone (C loop)", "this node", "ratio", "CPU ms a frame", "cores busy"]
    rows = [[*head, "the baseline node", "board estimate: cores of 8"]]
    for name, row in figures.items():
        rows.append(
            [
                name,
                *(f"{row['limit']:.0f}", f"{row['fps']:.0f}", f"{row['fps'] / row['limit']:.1%}"),
                *(f"{row['cpu_ms']:.2f}", f"{row['busy']:.1f}"),
                f"{row['baseline_fps']:.0f}" if "baseline_fps" in row else "-",
                f"{BOARD * row['cpu_ms'] * row['fps'] / 1e3:.1f}",
            ]
        )
    return _table(*rows)


def cameras(rows: list[dict[str, Any]]) -> str:
    """Cost of a frame by camera, beside the C program on rcl."""
    table = [["source", "C on rcl", "this node, less the device's", "of C's", "lock ms"]]
    for row in rows:
        ratio = f"{row['own'] / row['c']:.1f}"
        cells = [f"{row['c']:.2f}", f"{row['own']:.2f}", ratio, f"{row['lock']:.2f}"]
        table.append([row["camera"], *cells])
    return _table(*table)


def regions(rows: list[dict[str, Any]]) -> str:
    """Images a second and latency by boxes, beside the device's limit."""
    table = [["boxes", "device alone", "sent", "answered", "p50 ms", "p99 ms"]]
    for row in rows:
        rates = (f"{row[name]:.0f}" for name in ("limit", "sent", "fps"))
        times = (f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms"))
        table.append([str(row["boxes"]), *rates, *times])
    return _table(*table)


def markdown(results: dict[str, Any]) -> str:
    """All of them, each with its caption."""
    figures = results["node"]
    late = figures["latency"]
    return "\n\n".join(
        (
            f"224x224 NV12 at {COST_RATE} fps, a device that takes no time, medians of {RUNS}:",
            cost(figures["cost"]),
            "A frame as cameras send it, default parameters, a device that takes no time, medians of "
            f"{CAMERA_RUNS}:",
            cameras(results["cameras"]),
            f"Answers a second, a device that takes no time, medians of {RUNS}:",
            overload(figures["overload"]),
            f"Answers a second on the emulated device, default parameters, sent {OVERLOAD - 1:.0%} "
            f"faster than it can take them, medians of {RUNS}:",
            throughput(figures["throughput"]),
            f"From publication to the answer's arrival, one camera at {CAMERA_RATE} fps, size 100, "
            f"default parameters: p50 {late['p50_ms']:.1f} ms, of which the device takes "
            f"{late['device_ms']:.2f}; p99 {late['p99_ms']:.1f} ms.",
            "Images a second with a detector's boxes:",
            regions(results["regions"]["throughput"]),
        )
    )
