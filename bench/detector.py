# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.detector`: faults of a detector every two seconds; all messages are accounted for.

The detector stops, is late, repeats itself, forgets stamps, names other frames, sends nonsense or ten
thousand boxes, and starts again; so does the camera. It fails unless every image and every array came
in, every image was matched or counted as something else, and every matched one was answered.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from bench import regions
from bench.camera import message
from bench.graph import Images, process
from bench.node import environment, our_node
from bench.participant import Participant
from bench.soak import COUNTS, unaccounted
from emulator.board import build, fused_timings, write_model
from repghost_ros.ros.isolation import isolate

FPS = 30
ROUND = 2.0  # seconds of each fault
LATE = 1.5  # seconds; an image waits for one
CROWD = 10_000
BOXES = 4
DEPTH = 1000  # of all queues: none overflows
SETTLED = 30.0  # seconds until everything has been counted
IMAGES = Images("bgr8", 640, 480)
RESTARTS = {"detector restarts": Detection2DArray, "camera restarts": Image}
FAULTS = (
    *("none", "no boxes", "late", "twice", "no stamp", "other frame", "nan", "negative", "crowd"),
    "no images",
    *RESTARTS,
)
IMAGE_ENDS = ("matched", "images without boxes", "doubled images", "unstamped images")
ARRAY_ENDS = (
    *("matched", "boxes without image", "late boxes", "doubled boxes", "unstamped boxes"),
)


class Rig(Participant):
    """A camera and a detector that go wrong, and what the node counts."""

    def __init__(self) -> None:
        super().__init__("soak_detector")
        self.sent = {Image: 0, Detection2DArray: 0}
        self.frames = dict.fromkeys(COUNTS, 0)
        """Sums of what the diagnostics say of each period."""
        self.matches = dict.fromkeys(("images", "arrays", *IMAGE_ENDS, *ARRAY_ENDS), 0)
        """What they say of all images and arrays so far."""
        self.answers = 0
        self._qos = QoSProfile(depth=DEPTH)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._count, DEPTH)
        self._node.create_subscription(
            Detection2DArray, "/repghost/detections", self._answered, self._qos, raw=True
        )
        self._image, self._number = message(IMAGES), 0
        self._delayed: deque[tuple[float, Any]] = deque()
        self.start()
        self._publishers = {kind: self._open(kind) for kind in self.sent}

    def _open(self, kind: Any) -> Any:
        """Return a publisher that already has its subscriber."""
        topic = "image" if kind is Image else "boxes"
        publisher = self._node.create_publisher(kind, topic, self._qos)
        while not publisher.get_subscription_count():
            time.sleep(0.05)
        time.sleep(0.5)  # the other side matches a moment later
        return publisher

    def _count(self, array: Any) -> None:
        for status in array.status:
            values = {value.key: value.value for value in status.values}
            if COUNTS[0] in values:
                for name in COUNTS:
                    self.frames[name] += int(values[name])
                self.matches = {name: int(values[name]) for name in self.matches}

    def _answered(self, _: bytes) -> None:
        self.answers += 1

    def _send(self, message: Any) -> None:
        self._publishers[type(message)].publish(message)
        self.sent[type(message)] += 1

    def step(self, fault: str) -> None:
        """Send one image and its boxes, as the fault has it."""
        self._number += 1
        array = regions.array(CROWD if fault == "crowd" else BOXES)
        stamp = 0 if fault == "no stamp" else self._number
        self._image.header.stamp.sec = array.header.stamp.sec = stamp
        array.header.frame_id = "elsewhere" if fault == "other frame" else ""
        for detection in array.detections:
            if fault == "nan":
                detection.bbox.center.position.x = float("nan")
            elif fault == "negative":
                detection.bbox.size_x = -1.0
        times = 2 if fault == "twice" else 1
        for _ in range(0 if fault == "no images" else times):
            self._send(self._image)
        if fault == "late":
            self._delayed.append((time.monotonic() + LATE, array))
        elif fault != "no boxes":
            for _ in range(times):
                self._send(array)
        self._send_late(before=time.monotonic())

    def _send_late(self, before: float) -> None:
        """Send the delayed arrays that were due before a time."""
        while self._delayed and self._delayed[0][0] <= before:
            self._send(self._delayed.popleft()[1])

    def restart(self, kind: Any) -> None:
        """Let what sends these messages leave the graph and come back."""
        publisher = self._publishers[kind]
        publisher.wait_for_all_acked(Duration(seconds=10))
        self._node.destroy_publisher(publisher)
        self._publishers[kind] = self._open(kind)

    def unaccounted(self) -> dict[str, int]:
        """Return differences between what was sent, what came in, and what became of it."""
        images, arrays = self.matches["images"], self.matches["arrays"]
        answered = self.frames["frames answered"] + self.frames["frames refused"]
        found = {
            "images lost": self.sent[Image] - images,
            "arrays lost": self.sent[Detection2DArray] - arrays,
            "images": images - sum(self.matches[name] for name in IMAGE_ENDS),
            "arrays": arrays - sum(self.matches[name] for name in ARRAY_ENDS),
            "frames": unaccounted(self.frames),
            "answers": answered - self.answers,
        }
        return {name: number for name, number in found.items() if number}

    def settle(self) -> None:
        """Send what is still late, and wait until all is counted."""
        self._send_late(before=math.inf)
        deadline = time.monotonic() + SETTLED
        while self.unaccounted() and time.monotonic() < deadline:
            time.sleep(0.2)


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
                if fault in RESTARTS:
                    rig.restart(RESTARTS[fault])
                    continue
                due = time.monotonic()
                until = due + ROUND
                while due < until:
                    time.sleep(max(0.0, due - time.monotonic()))
                    rig.step(fault)
                    due += 1 / (3 if fault == "crowd" else FPS)
            rig.settle()
            rig.close()
    print(f"faults: {dict(rounds)}")
    images, arrays = rig.sent.values()
    print(f"sent: {images} images, {arrays} arrays; answers: {rig.answers}")
    print(f"counted: {rig.matches}")
    print(f"frames: {rig.frames}")
    left = rig.unaccounted()
    print(f"FAILED: unaccounted for {left}" if left else "passed: nothing is unaccounted for")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
