# SPDX-License-Identifier: Apache-2.0
"""`python -m repghost_ros.demo`: camera, classifier and viewer, each in its own process."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

from repghost_ros.paths import share
from repghost_ros.ros.isolation import isolate

_POLL = 0.2  # seconds


def main() -> int:
    """Run the demo until it is interrupted or `--frames` frames were classified."""
    options = _options()
    print(f"on this machine only, ROS_DOMAIN_ID={isolate()}", flush=True)
    # The normal log of the node would get between the lines of the viewer's table.
    node = ["-p", "model:=demo", "-r", "__node:=repghost", "--log-level", "warn"]
    shown = ["--frames", str(options.frames), "--picture", options.picture]
    if options.regions:
        processes = {"the node": _start("ros.node", "--ros-args", *node, "-p", "detections:=boxes")}
        street = ["--fps", str(options.fps), "--seed", str(options.seed)]
        remapped = ["--ros-args", "-r", "detections:=repghost/detections"]
        viewer = _start("demo.street", *shown, *street, *remapped)
    else:
        camera = ["-p", f"fps:={options.fps}", "-p", f"seed:={options.seed}"]
        processes = {
            "the node": _start("ros.node", "--ros-args", *node),
            "the camera": _start("demo.camera", "--ros-args", *camera),
        }
        remapped = ["--ros-args", "-r", "classification:=repghost/classification"]
        viewer = _start("demo.viewer", *shown, *remapped)
    try:
        return _wait(viewer, processes)
    except KeyboardInterrupt:
        return viewer.wait()  # the terminal interrupted it, too; it prints a summary
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in processes.values():
            process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m repghost_ros.demo", description=__doc__)
    parser.add_argument("--frames", type=int, default=0, help="end after so many (0: never)")
    parser.add_argument("--fps", type=_fps, default=30.0, help="the camera's frames a second")
    parser.add_argument(
        "--seed", type=int, default=1, help="which sequence of signs the camera shows"
    )
    parser.add_argument("--picture", default="demo.png", help="PNG to draw a few frames into")
    parser.add_argument(
        "--regions", action="store_true", help="a street with several signs, classified box by box"
    )
    return parser.parse_args()


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a module of this package as a process of its own."""
    # Without it, Fast DDS loses half of the camera's frames on the way.
    profile = str(share() / "config" / "fastdds_images.xml")
    environment = {
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        **os.environ,
    }
    command = [sys.executable, "-m", f"repghost_ros.{module}", *arguments]
    return subprocess.Popen(command, env=environment)


def _wait(viewer: subprocess.Popen[bytes], needed: dict[str, subprocess.Popen[bytes]]) -> int:
    """Return the viewer's exit status, or 1 once a process that it needs has ended."""
    while viewer.poll() is None:
        for name, process in needed.items():
            if process.poll() is not None:
                print(f"{name} ended: the demo cannot go on", file=sys.stderr)
                viewer.send_signal(signal.SIGINT)
                viewer.wait()
                return 1
        time.sleep(_POLL)
    return viewer.returncode


def _fps(text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 0.1 <= fps <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0.1 to 1000")
    return fps


if __name__ == "__main__":
    sys.exit(main())
