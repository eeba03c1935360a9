# SPDX-License-Identifier: Apache-2.0
"""`make soak`: 10 minutes at 120 fps with a fault every few seconds; every frame is accounted for.

With `--cameras bgr8 jpeg` the node has its default parameters and two cameras of 640x480 at 30 fps, and
is switched to another model every few seconds.

The faults are the emulated device's failures, refusals and hangs, and broken messages. It fails unless
each frame sent came in and was answered, refused, failed or dropped, and nothing was left behind on
the device; how memory and threads went is printed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data

from bench.camera import Camera
from bench.graph import SMALL, Images
from bench.node import our_node
from bench.participant import Participant
from emulator.board import build, inject, timings, write_model
from repghost_ros.ros.isolation import isolate

FPS = 120
CAMERA_FPS = 30
MODELS = ("100", "150")
"""Between which the node is switched."""
DEPTH = 100  # of the images' queues: none overflows while a fault is dealt with
SILENCE = 10.0  # seconds without an answer that no fault explains: the longest hangs for 3
SETTLED = 15.0  # seconds until the last frames, which may hang in the device, have been told of
FAULTS: tuple[tuple[str, int, int], ...] = (
    ("run", -6000001, 5),
    ("infer", -6000009, 3),
    ("flush", -6000001, 1),
    ("load", -6000002, 1),
    ("hang", 3000, 1),
)
LEFT_BEHIND = ("live_models", "live_allocations", "live_tasks", "bad_frees", "freed_in_use")
COUNTS = (
    *("frames in", "frames answered", "frames refused", "frames failed"),
    *("frames dropped", "frames skipped"),
)


def memory_and_threads(pid: int) -> tuple[float, int]:
    """Resident megabytes and number of threads of a process."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])


class Ledger(Participant):
    """Adds up what the node's diagnostics say of its frames."""

    def __init__(self) -> None:
        super().__init__("soak_ledger")
        self.totals = dict.fromkeys(COUNTS, 0)
        self.worst_ms = 0.0
        self.heard = threading.Event()
        """Set once the node's diagnostics arrive: what was told before is missing."""
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._add, 100)
        self._parameters = self._node.create_client(SetParameters, "/repghost/set_parameters")
        self.start()

    def _add(self, message: Any) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            if COUNTS[0] in values:
                self.heard.set()
                for name in COUNTS:
                    self.totals[name] += int(values[name])
                latency = float(values["end-to-end latency p99 (ms)"])
                if latency > self.worst_ms:
                    self.worst_ms = latency

    def switch(self, model: Path) -> Any:
        """Ask the node for another model; returns the future of its answer."""
        parameter = Parameter("model_path", value=str(model)).to_parameter_msg()
        return self._parameters.call_async(SetParameters.Request(parameters=[parameter]))


def unaccounted(totals: dict[str, int]) -> int:
    """Frames received whose outcome has not been reported."""
    return totals[COUNTS[0]] - sum(totals[name] for name in COUNTS[1:])


class Switches:
    """Switches the node from one model to the next, and counts how it answered."""

    def __init__(self, ledger: Ledger, models: Sequence[Path]) -> None:
        self.made = self.refused = 0
        self._ledger = ledger
        self._models = itertools.cycle(models)
        self._asked: Any = None

    def go_on(self) -> None:
        """Make the next request once the last is answered."""
        if self.settled():
            self._asked = self._ledger.switch(next(self._models))

    def settled(self) -> bool:
        """Return whether the last request is answered, which is then counted."""
        if self._asked is not None and self._asked.done():
            if self._asked.result().results[0].successful:
                self.made += 1
            else:
                self.refused += 1
            self._asked = None
        return self._asked is None


def complaints(
    silence: float, inside: int, lost: int, code: int, left_behind: dict[str, str]
) -> list[str]:
    """Return the reason why the soak has failed, if it has.

    Args:
        silence: the longest time in seconds without an answer.
        inside: frames that came in and are unaccounted for.
        lost: frames that were sent and did not come in.
        code: the node's exit code.
        left_behind: what is left on the device, and how much of it.

    """
    found = {
        f"no answer for {silence:.1f} s": silence > SILENCE,
        f"{inside} frames unaccounted for {SETTLED:.0f} s after they came in": inside != 0,
        f"{lost} frames lost on the way": lost != 0,
        f"the node ended with {code}": code != 0,
        f"left behind on the device: {left_behind}": bool(left_behind),
    }
    return [reason for reason, holds in found.items() if holds]


def main() -> int:
    """Soak, print the account, and return 1 if it does not balance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument(
        "--cameras", nargs="+", default=[], metavar="ENCODING", help="of 640x480, jpeg among them"
    )
    arguments = parser.parse_args()
    seconds, encodings = arguments.seconds, arguments.cameras
    isolate()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        control, left = folder / "control", folder / "stats"
        models = [write_model(folder / f"{size}.bin", **timings(size)) for size in MODELS]
        environment = {
            **os.environ,
            "REPGHOST_LIBDNN": str(build(folder)),
            "REPGHOST_EMU_CONTROL": str(control),
            "REPGHOST_EMU_STATS": str(left),
        }
        if encodings:
            cameras = {f"camera_{each}": Images(each, 640, 480) for each in encodings}
            parameters, qos = {"cameras": f"[{', '.join(cameras)}]"}, qos_profile_sensor_data
        else:  # reliable: what is sent must come in
            cameras, qos = {"": SMALL}, QoSProfile(depth=DEPTH)
            parameters = {"watchdog": "1.0", "bpu_timeout": "0.5"}
            parameters |= {"qos_reliability": "reliable", "qos_depth": str(DEPTH)}
        ledger = Ledger()
        switches = Switches(ledger, models[::-1] if encodings else [])
        command = [*our_node(models[0], parameters), "--log-level", "fatal"]
        node = subprocess.Popen([sys.executable, *command], env=environment)
        camera = Camera("repghost", qos, cameras)
        camera.wait_for_node()
        ledger.heard.wait()
        time.sleep(1.5)  # until the diagnostics have told of these frames
        sent_before, in_before = camera.published, ledger.totals[COUNTS[0]]
        samples: list[tuple[float, float, int]] = []
        faults = answered = 0
        worst = 0.0
        start = time.monotonic()
        while (now := time.monotonic() - start) < seconds:
            fault = chance.choice(FAULTS)
            inject(control, fault, *([("run", -6000001, 1)] if fault[0] == "load" else []))
            faults += 1
            camera.send_broken(3)
            if encodings:
                switches.go_on()
            run = camera.run(CAMERA_FPS if encodings else FPS, 4.0, warm_up=0.0)
            sent = camera.published - sent_before
            answered += len(run.latencies)
            worst = max(worst, *run.latencies) if run.latencies else worst
            samples.append((now / 60, *memory_and_threads(node.pid)))
            print(
                f"{now:6.0f} s  {fault[0]:>6}  sent {sent:7}  answered {answered:7}  "
                f"{samples[-1][1]:6.1f} MB  {samples[-1][2]:3} threads",
                flush=True,
            )
        silence = camera.silence()
        time.sleep(1.5)  # until the diagnostics have told of the last frames
        # What is missing until then is in flight.
        deadline = time.monotonic() + SETTLED
        while time.monotonic() < deadline:
            totals = dict(ledger.totals)
            arrived = bool(encodings) or sent == totals[COUNTS[0]] - in_before
            if arrived and switches.settled() and not unaccounted(totals):
                break
            time.sleep(0.1)
        node.send_signal(signal.SIGINT)
        code = node.wait(10)
        camera.close()
        ledger.close()
        remains = dict(line.split() for line in left.read_text().splitlines())
    minutes, memory, threads = np.array(samples[len(samples) // 4 :]).T
    slope = float(np.polyfit(minutes, memory, 1)[0]) if len(minutes) > 2 else 0.0
    inside = unaccounted(totals)
    print(f"\n{faults} faults in {seconds:.0f} s; the node ended with {code}")
    print("  ".join(f"{name}: {count}" for name, count in totals.items()))
    print(f"switched to another model {switches.made} times, refused {switches.refused} times")
    lost = sent - (totals[COUNTS[0]] - in_before)
    print(
        f"sent {sent}, lost on the way {lost}, answered over DDS {answered}, worst latency "
        f"{worst * 1e3:.0f} ms"
    )
    print(
        f"memory {memory[-1]:.1f} MB, slope {slope:+.2f} MB a minute; threads {threads.max():.0f}"
    )
    left_behind = {name: remains[name] for name in LEFT_BEHIND if remains[name] != "0"}
    print(f"left behind on the device: {left_behind or 'nothing'}")
    print(f"longest time without an answer {silence:.1f} s, allowed {SILENCE:.0f} s")
    # A best-effort subscription may miss frames; none may come in twice.
    reasons = complaints(silence, inside, min(lost, 0) if encodings else lost, code, left_behind)
    print(f"FAILED: {'; '.join(reasons)}" if reasons else "passed")
    return int(bool(reasons))


if __name__ == "__main__":
    sys.exit(main())
