# SPDX-License-Identifier: Apache-2.0
"""Faults around a robot's node: publishers, clocks, processes, files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from helpers.graph import DEMO, RELIABLE, Robot, best, image, running_node, sign, wait_until
from helpers.waiting import WAIT
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from repghost_ros.paths import share
from repghost_ros.ros import messages

NAMED = ("-r", "__node:=fault", "-r", "image:=fault_image")
LABELS = str(share() / "labels" / "demo.txt")


class SlowArchive(BaseHTTPRequestHandler):
    """Sends a file that would take a day."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(10**7))
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"\x08" * 10)
                time.sleep(0.1)
        except OSError:  # the other side has gone
            pass

    def log_message(self, *_: Any) -> None:
        pass


NODE = "fault"


def test_no_frame_is_lost_in_a_swap(robot: Robot) -> None:
    reliable: dict[str, Any] = {"qos_reliability": "reliable", "qos_depth": 200, "queue_depth": 200}
    with running_node(*NAMED, labels_path=LABELS, **reliable):
        publisher = robot.publisher("fault_image")
        stop = threading.Event()
        sent: list[int] = []

        def film() -> None:
            while not stop.wait(0.01):
                sent.append(len(sent) + 1)
                publisher.publish(image(sign("stop"), stamp=sent[-1]))

        camera = threading.Thread(target=film)
        camera.start()
        for path in (DEMO, "", DEMO, ""):
            assert robot.set_parameter("model_path", path).successful
        assert not robot.set_parameter("model_path", "/nowhere/model.onnx").successful
        stop.set()
        camera.join()
        wait_until(lambda: len(robot.classifications) >= len(sent), "every answer")
        assert [c.header.stamp.sec for c in robot.classifications] == sent


def test_impossible_transitions_are_refused(robot: Robot) -> None:
    with running_node(*NAMED):
        publisher = robot.publisher("fault_image")
        robot.answer(publisher, image(sign("stop"), stamp=1))
        assert not robot.change_state(1)  # it is configured already
        assert robot.state() == "active"
        robot.answer(publisher, image(sign("stop"), stamp=2))


@pytest.mark.parametrize("path", ["~nobody_here/model.onnx", f"/{'a' * 5000}.onnx"])
def test_paths_that_cannot_even_be_looked_up(robot: Robot, path: str) -> None:
    with running_node(*NAMED):
        publisher = robot.publisher("fault_image")
        refused = robot.set_parameter("model_path", path)
        assert not refused.successful
        assert refused.reason
        robot.answer(publisher, image(sign("stop"), stamp=1))


def test_a_region_that_leaves_the_frame_spares_the_backend(robot: Robot) -> None:
    with running_node(*NAMED) as node:
        publisher = robot.publisher("fault_image")
        robot.collect(Image, "/fault/overlay")
        robot.answer(publisher, image(sign("stop"), stamp=1))
        for stamp in range(2, 40):
            publisher.publish(image(sign("stop"), stamp=stamp))
            outside = [0, 0, 0, 0] if stamp % 2 else [5000, 0, 8, 8]
            assert robot.set_parameter("roi", outside).successful
        assert "reopening" not in node.output()


def test_a_publisher_that_vanishes_and_returns(robot: Robot) -> None:
    with running_node(*NAMED):
        for stamp in (1, 2):
            publisher = robot.publisher("fault_image")
            assert best(robot.answer(publisher, image(sign("stop"), stamp=stamp))) == "stop"
            robot.drop_publisher("fault_image")


def test_simulated_time_that_stands_still_and_jumps_back(robot: Robot) -> None:
    with running_node(*NAMED, use_sim_time="true"):  # activated with no clock at all
        publisher = robot.publisher("fault_image")
        robot.answer(publisher, image(sign("stop"), stamp=1))
        clock = robot.publisher("/clock", Clock)
        for seconds in (1000, 5, 10**6):
            message = Clock()
            message.clock.sec = seconds
            clock.publish(message)
            answer = robot.answer(publisher, image(sign("stop"), stamp=seconds))
            assert answer.header.stamp.sec == seconds


def test_a_model_file_that_is_replaced_while_it_runs(robot: Robot, tmp_path: Path) -> None:
    model = tmp_path / "own.onnx"
    shutil.copy(DEMO, model)
    with running_node(*NAMED, model_path=model, labels_path=LABELS):
        publisher = robot.publisher("fault_image")
        model.write_bytes(b"no model any more")
        assert best(robot.answer(publisher, image(sign("stop"), stamp=1))) == "stop"
        refused = robot.set_parameter("color_range", "limited")  # wants the file again
        assert not refused.successful
        assert str(model) in refused.reason
        assert best(robot.answer(publisher, image(sign("stop"), stamp=2))) == "stop"


def test_incompatible_publishers_and_subscribers_are_warned_of(robot: Robot) -> None:
    asking = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    with running_node(*NAMED, qos_reliability="reliable") as node:
        robot.publisher("fault_image")
        robot.node.create_publisher(
            Image, "fault_image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        # Nobody can get what the node does not keep: it says so once for such a subscriber.
        robot.node.create_subscription(
            messages.Classification, "/fault/classification", lambda m: None, asking
        )
        wait_until(lambda: node.output().count("incompatible QoS") >= 2, "both warnings")
        publisher = robot.publisher("fault_image", qos=RELIABLE)
        robot.answer(publisher, image(sign("stop"), stamp=1))


def test_a_slow_download_holds_neither_diagnostics_nor_an_interrupt_up(
    robot: Robot, tmp_path: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowArchive)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    environment = {"REPGHOST_MODEL_URL": address, "REPGHOST_HOME": str(tmp_path)}
    with running_node(
        *NAMED, env=environment, model="100", backend="onnx", diagnostics_period="0.1"
    ) as node:
        wait_until(lambda: "downloading" in node.output(), "the download")
        received = robot.collect(DiagnosticArray, "/diagnostics")
        wait_until(lambda: len(received) >= 3, "diagnostics meanwhile")
        assert {s.message for message in received for s in message.status} == {"downloading 0 %"}
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(WAIT) == 0
    assert (tmp_path / "repghostnet_100.onnx.part").stat().st_size > 0
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_cleanly(robot: Robot, way: signal.Signals) -> None:
    with running_node(*NAMED) as node:
        publisher = robot.publisher("fault_image")
        robot.answer(publisher, image(sign("stop"), stamp=1))
        for stamp in range(2, 20):
            publisher.publish(image(sign("stop"), stamp=stamp))
        node.process.send_signal(way)
        assert node.process.wait(WAIT) == 0
    # The frames in work found ROS still there.
    assert "Traceback" not in node.output()


def test_an_impatient_user_does_not_break_the_shutdown(robot: Robot) -> None:
    with running_node(*NAMED) as node:
        robot.answer(robot.publisher("fault_image"), image(sign("stop"), stamp=1))
        while node.process.poll() is None:
            node.process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        assert node.process.wait() == 0


def test_a_killed_node_leaves_the_graph_usable(robot: Robot) -> None:
    command = [sys.executable, "-m", "repghost_ros.ros.node", "--ros-args", *NAMED]
    killed = subprocess.Popen([*command, "-p", "model:=demo"], env=dict(os.environ))
    publisher = robot.publisher("fault_image")
    robot.answer(publisher, image(sign("stop"), stamp=1))
    killed.kill()
    killed.wait()
    robot.classifications.clear()
    with running_node(*NAMED):
        answers: list[Any] = robot.classifications

        def answered() -> bool:
            publisher.publish(image(sign("stop"), stamp=2))
            return bool(answers)

        wait_until(answered, "the next node's answer")
