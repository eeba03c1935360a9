# SPDX-License-Identifier: Apache-2.0
"""The node behind a detector: images with 1 to 16 boxes over DDS, a model for batches of four."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D, Detection2DArray

from bench.camera import Run, message
from bench.graph import Images, cpu_seconds, process
from bench.node import environment, our_node
from bench.participant import Participant
from emulator.board import Emulator, build, fused_timings, write_model
from repghost_ros.ros.isolation import isolate
from repghost_ros.vision.frame import from_array
from repghost_ros.vision.view import View

BOXES = (1, 4, 8, 16)
IMAGES = Images("bgr8", 1280, 720)
SIDE = 160
"""Pixels of a box: 8 of them fit side by side."""
SIZE = "200"  # the slowest: images of 2.8 MB cannot be sent faster on two cores
OVERLOAD = 1.1  # images sent per image that the device can take
MOST_FPS = 150.0  # sent
COST_FPS = 30.0
LATENCY_BOXES, LATENCY_FPS = 8, 30.0
SECONDS = 4.0
_SECOND = slice(4, 8)
"""The bytes of a serialized message in which header.stamp.sec lies."""


def array(boxes: int) -> Any:
    """Return a detector's message with so many boxes side by side, in rows of eight."""
    found = Detection2DArray()
    for number in range(boxes):
        detection = Detection2D(id=str(number))
        detection.bbox.center.position.x = SIDE * (number % 8 + 0.5)
        detection.bbox.center.position.y = SIDE * (number // 8 + 0.5)
        detection.bbox.size_x = detection.bbox.size_y = float(SIDE)
        found.detections.append(detection)
    return found


class Detector(Participant):
    """Sends images with their boxes to the node, and times its arrays of answers."""

    def __init__(self) -> None:
        super().__init__("bench_detector")
        self._images = self._node.create_publisher(Image, "image", qos_profile_sensor_data)
        self._arrays = self._node.create_publisher(Detection2DArray, "boxes", QoSProfile(depth=10))
        # Neither written nor read in Python: that would take a core.
        self._node.create_subscription(
            Detection2DArray,
            "/repghost/detections",
            self._on_answer,
            QoSProfile(depth=1000),
            raw=True,
        )
        self._image = bytearray(serialize_message(message(IMAGES)))
        self._number = 0
        self._sent: dict[int, float] = {}
        self._answers: dict[int, float] = {}
        self.start()

    def _on_answer(self, answer: bytes) -> None:
        self._answers[int.from_bytes(answer[_SECOND], "little")] = time.monotonic()

    def _publish(self, boxes: bytearray) -> None:
        self._number += 1
        self._image[_SECOND] = boxes[_SECOND] = self._number.to_bytes(4, "little")
        self._sent[self._number] = time.monotonic()
        self._images.publish(bytes(self._image))
        self._arrays.publish(bytes(boxes))

    def run(self, boxes: int, fps: float, seconds: float, warm_up: float = 1.0) -> Run:
        """Send at a rate, once the node answers; collect what is answered after the warm-up."""
        found = bytearray(serialize_message(array(boxes)))
        self._answers.clear()
        while not self._answers:
            self._publish(found)
            time.sleep(0.05)
        self._sent.clear()
        self._answers.clear()
        due = time.monotonic()
        begin = due + warm_up
        while (now := time.monotonic()) < begin + seconds:
            if now < due:
                time.sleep(due - now)
            due += 1 / fps
            self._publish(found)
        time.sleep(0.3)
        counted = sum(moment >= begin for moment in self._sent.values())
        late = {
            n: moment for n, moment in self._answers.items() if begin <= moment and n in self._sent
        }
        return Run(seconds, counted, [moment - self._sent[n] for n, moment in late.items()])


@contextmanager
def behind(library: Path, model: Path) -> Iterator[tuple[Detector, int]]:
    """Run the node with a model; yields what sends to it, and its process."""
    with process(our_node(model, {"detections": "boxes"}), env=environment(library)) as running:
        detector = Detector()
        try:
            yield detector, running.pid
        finally:
            detector.close()


def throughput(emulated: Emulator, folder: Path) -> list[dict[str, Any]]:
    """Print and return images a second by boxes, beside the device's limit, and their latency."""
    model = write_model(
        folder / "four.bin", {"name": "four", **fused_timings(4, SIZE)}, **fused_timings(1, SIZE)
    )
    limit = emulated.limit(model)
    print(f"size {SIZE}, fused, batches of four; the device alone takes {limit:.0f} boxes a second")
    print(
        f"{'boxes':>5} {'device':>7} {'sent':>6} {'answered':>8} {'ratio':>6} {'p50 ms':>7} "
        f"{'p99 ms':>7}"
    )
    rows = []
    with behind(emulated.library, model) as (detector, _):
        for boxes, fps in (
            *((n, min(MOST_FPS, OVERLOAD * limit / n)) for n in BOXES),
            (LATENCY_BOXES, LATENCY_FPS),
        ):
            run = detector.run(boxes, fps, SECONDS)
            row = {
                "boxes": boxes,
                "limit": limit / boxes,
                "sent": run.sent / SECONDS,
                "fps": run.rate,
                "p50_ms": run.percentile(50),
                "p99_ms": run.percentile(99),
            }
            share = row["fps"] / min(row["limit"], row["sent"])
            rows.append({**row, "share": share})
            print(
                f"{boxes:5} {row['limit']:7.1f} {row['sent']:6.1f} {row['fps']:8.1f} {share:6.1%} "
                f"{row['p50_ms']:7.2f} {row['p99_ms']:7.2f}",
                flush=True,
            )
    return rows


def cost(emulated: Emulator, folder: Path) -> dict[str, Any]:
    """Print and return the processor time of an image by boxes, and of a box beyond the first."""
    instant = {"exclusive_us": 0, "overhead_us": 0}
    model = write_model(folder / "instant.bin", {"name": "four", "batch": 4}, **instant)
    cpu: dict[int, float] = {}
    with behind(emulated.library, model) as (detector, pid):
        for boxes in BOXES:
            detector.run(boxes, COST_FPS, 0.5, warm_up=0.0)
            before = cpu_seconds(pid)
            run = detector.run(boxes, COST_FPS, SECONDS, warm_up=0.0)
            cpu[boxes] = (cpu_seconds(pid) - before) / len(run.latencies) * 1e3
    each = float(np.polyfit(list(cpu), list(cpu.values()), 1)[0])
    start = time.process_time()
    inferred = emulated.limit(model, threads=1, seconds=1.0)
    device = (time.process_time() - start) / inferred * 1e3
    pixels = _pixels_ms()
    print(
        f"\na device that takes no time, {COST_FPS:.0f} images a second; CPU ms of an image by boxes:"
    )
    print("  ".join(f"{boxes}: {ms:.2f}" for boxes, ms in cpu.items()))
    print(
        f"a box beyond the first takes {each:.3f} ms: {pixels:.3f} its pixels ({SIDE}x{SIDE}), "
        f"{device:.3f} the emulated device, {each - pixels - device:.3f} the rest"
    )
    return {"cpu_ms": cpu, "box_ms": each, "pixels_ms": pixels, "device_ms": device}


def _pixels_ms(times: int = 2000) -> float:
    """Return the processor time in milliseconds of converting what a box shows, in C as in the node."""
    picture = np.random.default_rng(0).integers(0, 256, (IMAGES.height, IMAGES.width, 3), np.uint8)
    frame = from_array(picture).crop(SIDE, SIDE, SIDE, SIDE)
    nv12 = np.empty((336, 224), np.uint8)
    plan = View().plan(frame, nv12)
    start = time.process_time()
    for _ in range(times):
        plan.run()
    return (time.process_time() - start) / times * 1e3


def main() -> dict[str, Any]:
    """Run all of it; returns the figures."""
    print(
        f"{IMAGES} images with boxes of {SIDE}x{SIDE} over DDS, default parameters, emulated device"
    )
    with tempfile.TemporaryDirectory() as scratch:
        emulated = Emulator(build(Path(scratch)))
        return {
            "throughput": throughput(emulated, Path(scratch)),
            "cost": cost(emulated, Path(scratch)),
        }


if __name__ == "__main__":
    isolate()
    main()
