# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.detector`: faults of a detector every two seconds; all messages are accounted for.

The detector stops, is late, repeats itself, forgets stamps, names other frames, sends nonsense or ten
thousand boxes, and starts again; so does the camera. It fails unless every image and every array came
in, every image was matched or counted as something else, and every matched one was answered.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from bench import regions
from bench.camera import message
from bench.graph import Images, process
from bench.node import environment, our_node
from emulator.board import build, fused_timings, write_model
from repghost_ros.ros.isolation import isolate
from repghost_ros.ros.process import fastest_executor, spin

FPS = 30
ROUND = 2.0  # seconds of each fault
LATE = 1.5  # seconds; an image waits for one
CROWD = 10_000
BOXES = 4
DEPTH = 1000  # of all queues: none overflows
SETTLED = 30.0  # seconds until everything has been counted
IMAGES = Images("bgr8", 640, 480)
FAULTS = (
    *("none", "no boxes", "late", "twice", "no stamp", "other frame", "nan", "negative", "crowd"),
    *("no images", "detector restarts", "camera restarts"),
)
IMAGE_ENDS = ("matched", "images without boxes", "doubled images", "unstamped images")
ARRAY_ENDS = (
    *("matched", "boxes without image", "late boxes", "doubled boxes", "unstamped boxes"),
)
FRAME_ENDS = tuple(
    f"frames {end}" for end in ("answered", "refused", "failed", "dropped", "skipped")
)


class Rig:
    """A camera and a detector that go wrong, and what the node counts."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        """Sums of what the diagnostics say of each period."""
        self.matches: dict[str, int] = {}
        """What they say of all images and arrays so far."""
        self.answers = 0
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node("soak_detector", context=self._context)
        self._qos = QoSProfile(depth=DEPTH)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._count, DEPTH)
        self._node.create_subscription(
            Detection2DArray, "/repghost/detections", self._answered, self._qos, raw=True
        )
        self._image, self._number = message(IMAGES), 0
        self._delayed: deque[tuple[float, Any]] = deque()
        self._closing = False
        self._executor = fastest_executor(self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(
            target=spin, args=(self._executor, self._context, lambda: self._closing)
        )
        self._thread.start()
        self._images = self._open(Image, "image")
        self._arrays = self._open(Detection2DArray, "boxes")

    def _open(self, kind: Any, topic: str) -> Any:
        publisher = self._node.create_publisher(kind, topic, self._qos)
        while not publisher.get_subscription_count():
            time.sleep(0.05)
        time.sleep(0.5)  # the other side matches a moment later
        return publisher

    def _count(self, array: Any) -> None:
        for status in array.status:
            values = {value.key: value.value for value in status.values}
            if "frames in" in values:
                for name in ("frames in", *FRAME_ENDS):
                    self.frames[name] += int(values[name])
                names = {*IMAGE_ENDS, *ARRAY_ENDS, "images", "arrays"}
                self.matches = {name: int(values[name]) for name in names}

    def _answered(self, _: bytes) -> None:
        self.answers += 1

    def _send_image(self) -> None:
        self._images.publish(self._image)
        self.sent["images"] += 1

    def _send_array(self, array: Any) -> None:
        self._arrays.publish(array)
        self.sent["arrays"] += 1

    def step(self, fault: str) -> None:
        """Send one image and its boxes, as the fault has it."""
        self._number += 1
        stamp = self._image.header.stamp
        stamp.sec, stamp.nanosec = self._number, 0
        array = regions.array(CROWD if fault == "crowd" else BOXES)
        array.header.stamp.sec = self._number
        array.header.frame_id = "elsewhere" if fault == "other frame" else ""
        if fault == "no stamp":
            stamp.sec = array.header.stamp.sec = 0
        for detection in array.detections:
            if fault == "nan":
                detection.bbox.center.position.x = float("nan")
            elif fault == "negative":
                detection.bbox.size_x = -1.0
        times = 2 if fault == "twice" else 1
        for _ in range(0 if fault == "no images" else times):
            self._send_image()
        if fault == "late":
            self._delayed.append((time.monotonic() + LATE, array))
        elif fault != "no boxes":
            for _ in range(times):
                self._send_array(array)
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._send_array(self._delayed.popleft()[1])

    def restart(self, which: str) -> None:
        """Let the camera or the detector leave the graph and come back."""
        kind, topic, name = (
            (Image, "image", "_images")
            if which == "camera restarts"
            else (Detection2DArray, "boxes", "_arrays")
        )
        publisher = getattr(self, name)
        publisher.wait_for_all_acked(Duration(seconds=10))
        self._node.destroy_publisher(publisher)
        setattr(self, name, self._open(kind, topic))

    def unaccounted(self) -> dict[str, int]:
        """Return differences between what was sent, what came in, and what became of it."""
        matches, frames = self.matches, self.frames
        images, arrays = matches.get("images", 0), matches.get("arrays", 0)
        found = {
            "images lost": self.sent["images"] - images,
            "arrays lost": self.sent["arrays"] - arrays,
            "images": images - sum(matches.get(name, 0) for name in IMAGE_ENDS),
            "arrays": arrays - sum(matches.get(name, 0) for name in ARRAY_ENDS),
            "frames": frames["frames in"] - sum(frames[name] for name in FRAME_ENDS),
            "answers": frames["frames answered"] + frames["frames refused"] - self.answers,
        }
        return {name: number for name, number in found.items() if number}

    def close(self) -> None:
        """Send what is still late, and wait until all is counted."""
        while self._delayed:
            self._send_array(self._delayed.popleft()[1])
        deadline = time.monotonic() + SETTLED
        while self.unaccounted() and time.monotonic() < deadline:
            time.sleep(0.2)
        self._closing = True
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()


def main() -> int:
    """Run, print the account, and return 1 if it does not balance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    seconds = parser.parse_args().seconds
    isolate()
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = write_model(
            folder / "four.bin", {"name": "four", **fused_timings(4)}, **fused_timings(1)
        )
        parameters = {"detections": "boxes", "qos_reliability": "reliable", "qos_depth": str(DEPTH)}
        command = [*our_node(model, parameters), "--log-level", "fatal"]
        with process(command, env=environment(build(folder))):
            rig = Rig()
            end = time.monotonic() + seconds
            rounds: Counter[str] = Counter()
            while time.monotonic() < end:
                fault = chance.choice(FAULTS)
                rounds[fault] += 1
                if fault.endswith("restarts"):
                    rig.restart(fault)
                    continue
                due = time.monotonic()
                until = due + ROUND
                while due < until:
                    time.sleep(max(0.0, due - time.monotonic()))
                    rig.step(fault)
                    due += 1 / (3 if fault == "crowd" else FPS)
            rig.close()
    print(f"faults: {dict(rounds)}")
    print(f"sent: {dict(rig.sent)}; answers: {rig.answers}")
    print(f"counted: {rig.matches}")
    print(f"frames: {dict(rig.frames)}")
    left = rig.unaccounted()
    print(f"FAILED: unaccounted for {left}" if left else "passed: nothing is unaccounted for")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
