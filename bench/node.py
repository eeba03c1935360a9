# SPDX-License-Identifier: Apache-2.0
"""The node over DDS on the emulated device: what a frame costs, throughput, latency.

Measured in turn with it: a program in C on rcl that takes, copies and publishes (the minimum for a
ROS node), one that infers as well, this node without its compiled helper, and this node before it took
its images raw.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import emulator
from bench import graph, lock
from bench.graph import SMALL, Images, Load, Run
from emulator.board import Emulator, build, fused_timings, timings, write_model

SIZES = ("100", "111", "130", "150", "200")
SECONDS = 2.0
RUNS = 5  # of which medians are reported
COST_RATE, COST_SECONDS = 400, 4.0
RATES = (1000, 2000, 3000, 6000)
OVERLOAD = 1.1  # frames sent per frame that the device can take, so that it never waits
CAMERA_RATE, CAMERA_SECONDS = 30, 10.0
BOARD = 5.0
"""Times that a Cortex-A55 at 1.8 GHz takes longer than this machine's core: an estimate, see
docs/performance.md."""
BEFORE = "Take images raw from a wait set of the node's own subscription"
"""The commit whose parent is compared with."""
ROOT = Path(__file__).parent.parent
VENDOR = Path(emulator.__file__).parent / "vendor"


COPYING = {"source_color_range": "full", "class_id": "index"}
"""Parameters with which the compiled helper copies NV12 and names no class: the least work."""


def our_node(model: Path, parameters: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Return python's arguments for this package's node: config/classify.yaml, but for `parameters`."""
    chosen = {"model_path": str(model), "bpu_runtime": "libdnn", **parameters}
    arguments = [a for name, value in chosen.items() for a in ("-p", f"{name}:={value}")]
    return ["-m", "repghost_ros.ros.node", "--ros-args", "--log-level", "error", *arguments]


def environment(library: Path, tree: Path = ROOT) -> dict[str, str]:
    """Return the environment of a node on the emulated device, imported from `tree`."""
    path = f"{VENDOR}{os.pathsep}{tree}"
    return {**os.environ, "REPGHOST_LIBDNN": str(library), "PYTHONPATH": path}


@dataclass(frozen=True)
class Program:
    """A node to measure."""

    name: str
    topic: str
    """Of its answers."""
    command: Callable[[Path], list[str]]
    """Arguments of python, for a model."""
    tree: Path = ROOT
    """Where its packages are imported from."""
    helper: bool = True
    """Whether this node may use its compiled helper."""

    @contextmanager
    def run(self, library: Path, model: Path, counts: Path | None = None) -> Iterator[Any]:
        """Start the process; where `counts` is given, it samples Python's lock into that file."""
        command = self.command(model)
        if counts is not None:
            assert command[0] == "-m"
            watched = [str(ROOT / "bench" / "lock.py"), str(library.with_name("lock.so"))]
            command = [*watched, str(counts), *command[1:]]
        variables = environment(library, self.tree)
        if not self.helper:
            variables["REPGHOST_NATIVE"] = "0"
        with graph.process(command, env=variables, cwd=self.tree) as running:
            yield running


OURS = Program("default parameters", "/repghost/classification", our_node)
IN_PYTHON = Program("defaults, without its helper", OURS.topic, our_node, helper=False)
LEAST = Program(
    ", ".join(f"{name}: {value}" for name, value in COPYING.items()),
    OURS.topic,
    lambda model: our_node(model, COPYING),
)
IN_C, IN_C_WITH_DEVICE = "C on rcl", "C on rcl and libdnn"
BASELINE = Program(
    "baseline", "/baseline/classification", lambda m: ["-m", "bench.baseline_node", str(m)]
)


def in_c(library: Path, images: Images = SMALL) -> Program:
    """Return the program on rcl."""
    command = ["-m", "bench.graph", str(library), *images.arguments, "node"]
    return Program(IN_C, "/limit/classification", lambda _: command)


def in_c_with_device(library: Path, libdnn: Path) -> Program:
    """Return the program on rcl that infers the images one after the other."""
    command = ["-m", "bench.graph", str(library), *SMALL.arguments, "node", str(libdnn)]
    return Program(IN_C_WITH_DEVICE, "/limit/classification", lambda m: [*command, str(m)])


def before(folder: Path) -> Program | None:
    """Unpack the node of that commit's parent into a folder; without git, print the reason."""
    git = ["git", "-C", str(ROOT)]
    tree = folder / "before"
    try:
        search = [*git, "log", "--format=%h", "-1", "--grep", f"^{BEFORE}"]
        commit = subprocess.run(search, capture_output=True, check=True).stdout.decode().strip()
        archive = subprocess.run(
            [*git, "archive", f"{commit}^"], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"not compared with the commit before '{BEFORE}': {error}")
        return None
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(tree)
    return Program("defaults, the node before", OURS.topic, our_node, tree)


def measure(
    program: Program,
    library: Path,
    model: Path,
    rates: Sequence[float],
    seconds: float,
    images: Images = SMALL,
) -> list[Run]:
    """One process, one run for each rate."""
    with program.run(library, model) as running:
        load = Load(library.with_name("graph.so"), program.topic, running.pid, images)
        try:
            return [load.run(rate, seconds) for rate in rates]
        finally:
            load.close()


def lock_ms(
    program: Program, library: Path, model: Path, rate: float, images: Images = SMALL
) -> float:
    """Milliseconds that Python's lock is held for each answer."""
    counts = library.with_name("counts")
    with program.run(library, model, counts) as running:
        load = Load(library.with_name("graph.so"), program.topic, running.pid, images)
        load.run(rate, 0.5)
        held, looked = lock.read(counts)
        run = load.run(rate, SECONDS, warm_up=0.0)
        more_held, more_looked = lock.read(counts)
        load.close()
    # The counts go on for a moment after the run, in which the lock is hardly held.
    sampled = (run.seconds + 0.3) * (more_held - held) / (more_looked - looked)
    return sampled / run.answered * 1e3


def cost(programs: list[Program], library: Path, model: Path) -> dict[str, Any]:
    """Print and return the processor time and the lock's time of a frame."""
    print(
        f"\na frame's cost: 224x224 NV12 at {COST_RATE} fps, a device that takes no time; "
        f"medians of {RUNS}"
    )
    if lock_tells := sys.version_info[:2] <= lock.NEWEST:
        lock.build(library.parent)
    else:
        print(f"the lock's time cannot be told with Python {sys.version.split()[0]}")
    cpu: dict[str, list[float]] = {p.name: [] for p in programs}
    held: dict[str, list[float]] = {p.name: [] for p in programs}
    for _ in range(RUNS):
        for program in programs:
            (run,) = measure(program, library, model, [COST_RATE], COST_SECONDS)
            cpu[program.name].append(run.cpu_ms)
            if lock_tells and program.name not in (IN_C, IN_C_WITH_DEVICE):
                held[program.name].append(lock_ms(program, library, model, COST_RATE))
    rows = {}
    least, with_device = (median(cpu[name]) for name in (IN_C, IN_C_WITH_DEVICE))
    device = with_device - least
    print(f"the emulated device itself takes {device:.3f} ms of all but the first")
    print(
        f"{'':>44} {'CPU ms':>7} {'less the device':>15} {'of C':>5} {'lock ms':>8} | "
        f"board estimate, x{BOARD:g}: CPU ms, lock ms, frames/s that the lock allows"
    )
    for program in programs:
        used, lock_held = median(cpu[program.name]), median(held[program.name] or [float("nan")])
        own = used if program.name == IN_C else used - device
        most = 1e3 / (BOARD * lock_held)
        rows[program.name] = {
            "cpu_ms": used,
            "own_ms": own,
            "lock_ms": lock_held,
            "board_fps": most,
        }
        print(
            f"{program.name:>44} {used:7.3f} {own:15.3f} {own / least:5.2f} {lock_held:8.3f} | "
            f"{BOARD * own:.2f}, {BOARD * lock_held:.2f}, {most:.0f}",
            flush=True,
        )
    return rows


def overload(programs: list[Program], library: Path, model: Path) -> dict[str, Any]:
    """Print and return answers per second with a zero-time device, at rising load."""
    print(f"\nanswers a second, a device that takes no time; medians of {RUNS}")
    print(f"{'sent':>44} " + " ".join(f"{rate:>8}" for rate in RATES) + "  at the most sent / peak")
    rows = {}
    rates: dict[str, list[list[float]]] = {p.name: [] for p in programs}
    for _ in range(RUNS):
        for program in programs:
            runs = measure(program, library, model, list(RATES), SECONDS)
            rates[program.name].append([run.rate for run in runs])
    for program in programs:
        medians = [median(column) for column in zip(*rates[program.name])]
        rows[program.name] = dict(zip(RATES, medians))
        print(
            f"{program.name:>44} "
            + " ".join(f"{rate:8.0f}" for rate in medians)
            + f"  {medians[-1] / max(medians):.0%}",
            flush=True,
        )
    return rows


def throughput(emulated: Emulator, library: Path, folder: Path) -> dict[str, Any]:
    """Print and return the share of the device's own speed that the node reaches, per model."""
    print(
        f"\nanswers a second, default parameters, emulated device, {OVERLOAD:g} times as many sent; "
        f"medians of {RUNS}"
    )
    print(
        f"{'model':>10} {'device':>8} {'node':>8} {'ratio':>6} {'CPU ms':>7} {'cores busy':>10} "
        f"{'baseline':>9} | board estimate, x{BOARD:g}: cores of 8"
    )
    models = {size: write_model(folder / f"{size}.bin", **timings(size)) for size in SIZES}
    models["100 fused"] = write_model(folder / "fused.bin", **fused_timings(1))
    models["100 x4"] = write_model(
        folder / "batch.bin", {"name": "four", **fused_timings(4)}, **fused_timings(1)
    )
    rows = {}
    for name, model in models.items():
        limit = emulated.limit(model)
        runs = [measure(OURS, library, model, [limit * OVERLOAD], SECONDS)[0] for _ in range(RUNS)]
        rate, cpu = median(run.rate for run in runs), median(run.cpu_ms for run in runs)
        busy = median(run.busy for run in runs)
        row: dict[str, Any] = {"limit": limit, "fps": rate, "cpu_ms": cpu, "busy": busy}
        if name in SIZES:
            (run,) = measure(BASELINE, library, model, [limit * OVERLOAD], SECONDS)
            row["baseline_fps"] = run.rate
        rows[name] = row
        print(
            f"{name:>10} {limit:8.1f} {rate:8.1f} {rate / limit:6.1%} {cpu:7.2f} {busy:10.1f} "
            f"{row.get('baseline_fps', float('nan')):9.1f} | {BOARD * cpu * rate / 1e3:.1f}",
            flush=True,
        )
    return rows


def latency(library: Path, folder: Path) -> dict[str, Any]:
    """Print and return the latency of one camera's answers."""
    model = folder / "100.bin"
    device = timings("100")
    device_ms = (device["exclusive_us"] + device["overhead_us"]) / 1e3
    print(
        f"\nfrom publication to the answer's arrival, one camera at {CAMERA_RATE} fps, size 100, "
        "default parameters; medians of 3"
    )
    runs = [measure(OURS, library, model, [CAMERA_RATE], CAMERA_SECONDS)[0] for _ in range(3)]
    p50, p99 = median(run.p50_ms for run in runs), median(run.p99_ms for run in runs)
    print(
        f"p50 {p50:.2f} ms, of which the device takes {device_ms:.2f}; p99 {p99:.2f} ms, "
        f"{p99 / p50:.1f} times p50"
    )
    return {"device_ms": device_ms, "p50_ms": p50, "p99_ms": p99, "runs": [asdict(r) for r in runs]}


def main() -> dict[str, Any]:
    """Run all of it and print the tables; returns the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            library = build(folder)
            in_graph = graph.build(folder)
            programs = [OURS, LEAST, IN_PYTHON]
            programs += [in_c(in_graph), in_c_with_device(in_graph, library)]
            compared = [OURS, LEAST, programs[3]]
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"the node is not measured, its load and device cannot be compiled: {error}")
            return {}
        emulated = Emulator(library)
        old = before(folder)
        if old is not None:
            programs.append(old)
            compared.append(old)
        instant = write_model(folder / "instant.bin", exclusive_us=0, overhead_us=0)
        return {
            "cost": cost(programs, library, instant),
            "overload": overload(compared, library, instant),
            "throughput": throughput(emulated, library, folder),
            "latency": latency(library, folder),
        }


if __name__ == "__main__":
    main()
