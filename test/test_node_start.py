# SPDX-License-Identifier: Apache-2.0
"""The node until it classifies: what it answers and says meanwhile, and why it does not start."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from helpers.graph import Robot, best, image, running_node, sign, wait_until
from helpers.server import served
from helpers.waiting import WAIT
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from repghost_ros.paths import share
from repghost_ros.ros.lifecycle import ToRosout

MODEL = (share() / "models" / "demo.onnx").read_bytes()
FATAL = int.from_bytes(Log.FATAL, "little") if isinstance(Log.FATAL, bytes) else Log.FATAL
LABELS = str(share() / "labels" / "demo.txt")
DOWNLOADED: dict[str, Any] = {"model": "100", "backend": "onnx", "labels_path": LABELS}
ROSOUT = QoSProfile(
    depth=50, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class Stalling(BaseHTTPRequestHandler):
    """Sends a third of the model, and the rest once it is told to."""

    go_on: threading.Event

    def do_GET(self) -> None:
        third = len(MODEL) * 34 // 100 + 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(MODEL)))
        self.end_headers()
        self.wfile.write(MODEL[:third])
        self.wfile.flush()
        self.go_on.wait(60)
        self.wfile.write(MODEL[third:])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def stalling(tmp_path: Path) -> Iterator[tuple[dict[str, str], threading.Event]]:
    """Serve an archive that stalls; yield the node's environment and the event that lets it go on."""
    go_on = threading.Event()
    with served(type("Handler", (Stalling,), {"go_on": go_on}), tmp_path) as environment:
        yield environment, go_on
        go_on.set()


def ask_to_configure(robot: Robot) -> Any:
    """Request to configure, and return the future for which a manager waits."""
    client = robot.node.create_client(ChangeState, f"/{robot.name}/change_state")
    assert client.wait_for_service(WAIT)
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_CONFIGURE
    return client.call_async(request)


def model_status(messages: list[Any]) -> Any:
    """Return the latest status of the model."""
    return next(
        (s for m in reversed(messages) for s in m.status if s.name.endswith(": model")), None
    )


@pytest.mark.parametrize("events_executor", [True, False])
def test_configuring_holds_nothing_up(
    robot: Robot, stalling: tuple[dict[str, str], threading.Event], events_executor: bool
) -> None:
    environment, go_on = stalling
    diagnostics = robot.collect(DiagnosticArray, "/diagnostics")
    with running_node(
        env=environment,
        events_executor=events_executor,
        autostart="false",
        diagnostics_period="0.2",
        **DOWNLOADED,
    ):
        configured = ask_to_configure(robot)
        wait_until(lambda: robot.state() == "configuring", "the transition to begin")

        def told() -> bool:
            status = model_status(diagnostics)
            return bool(status) and status.message == "downloading 34 %"

        wait_until(told, "the progress in /diagnostics")
        assert model_status(diagnostics).level == DiagnosticStatus.WARN
        assert robot.get_parameter("model") == "100"
        assert robot.set_parameter("top_k", 3).successful
        assert not robot.change_state(Transition.TRANSITION_ACTIVATE)  # one at a time
        assert not configured.done()
        go_on.set()
        wait_until(configured.done, "the end of the transition")
        assert configured.result().success
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        answer = robot.answer(robot.publisher(), image(sign("stop"), stamp=1))
        assert best(answer) == "stop"
        assert len(answer.results) == 3


def test_an_interrupt_ends_a_stalled_configuration(
    robot: Robot, stalling: tuple[dict[str, str], threading.Event]
) -> None:
    environment, _ = stalling
    with running_node(env=environment, autostart="false", **DOWNLOADED) as node:
        ask_to_configure(robot)
        wait_until(lambda: "downloading" in node.output(), "the download")
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(20) == 0  # the stalled connection would take 30 s to time out
    assert "Traceback" not in node.output()


def test_a_swap_says_how_far_its_download_is(
    robot: Robot, stalling: tuple[dict[str, str], threading.Event]
) -> None:
    environment, go_on = stalling
    diagnostics = robot.collect(DiagnosticArray, "/diagnostics")
    with running_node(env=environment, diagnostics_period="0.2", backend="onnx") as node:
        publisher = robot.publisher()
        robot.set_parameter("labels_path", LABELS)
        assert robot.set_parameter("model", "100").successful

        def told() -> bool:
            status = model_status(diagnostics)
            values = {pair.key: pair.value for pair in status.values} if status else {}
            return values.get("opening") == "downloading 34 %"

        wait_until(told, "the progress in /diagnostics")
        assert model_status(diagnostics).level == DiagnosticStatus.OK
        assert best(robot.answer(publisher, image(sign("stop"), stamp=1))) == "stop"
        go_on.set()
        wait_until(lambda: "model '100'" in node.output(), "the line that tells of the new model")


def test_swaps_that_fail_one_after_the_other_are_reverted_to_the_model_that_answers(
    robot: Robot, tmp_path: Path
) -> None:
    go_on = threading.Event()

    class Failing(Stalling):
        def do_GET(self) -> None:
            go_on.wait(60)
            self.send_error(404)

    with (
        served(Failing, tmp_path) as environment,
        running_node(env=environment, backend="onnx") as node,
    ):
        publisher = robot.publisher()
        assert best(robot.answer(publisher, image(sign("stop"), stamp=1))) == "stop"
        for model in ("100", "111"):
            assert robot.set_parameter("model", model).successful
        assert robot.get_parameter("model") == "111"
        go_on.set()
        wait_until(lambda: "stays as it is" in node.output(), "the failure")
        assert robot.get_parameter("model") == "demo"
        assert best(robot.answer(publisher, image(sign("yield"), stamp=2))) == "yield"


def test_each_transition_is_told_in_one_line(robot: Robot) -> None:
    with running_node(autostart="false") as node:
        for transition in (
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
            Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
        ):
            assert robot.change_state(transition)
    assert "are fitted to 'demo' by resize: stretch (default)" in node.output()
    assert re.findall(r"\[INFO\].*: (\w+ -> \w+)$", node.output(), re.M) == [
        "unconfigured -> inactive",
        "inactive -> active",
        "active -> inactive",
        "inactive -> unconfigured",
        "unconfigured -> finalized",
    ]


def test_debug_says_what_came_and_what_became_of_it(robot: Robot) -> None:
    with running_node("--log-level", "repghost:=debug") as node:
        publisher = robot.publisher()
        robot.answer(publisher, image(sign("stop"), stamp=1))
        robot.set_parameter("top_k", 2)
        wait_until(lambda: "set top_k=2" in node.output(), "the parameter")
        line = wait_until(
            lambda: next((x for x in node.output().splitlines() if "frame of" in x), ""), "a frame"
        )
        assert re.search(r"DEBUG.*'/image': \d+x\d+ bgr8, answered stop \d+\.\d%; waited", line)
        assert "DEBUG" in next(x for x in node.output().splitlines() if "opening" in x)


def test_what_the_library_logs_reaches_rosout(robot: Robot) -> None:
    told = robot.collect(Log, "/rosout", ROSOUT)
    handler = ToRosout(robot.node)
    try:
        for level in (logging.WARNING, logging.ERROR, logging.WARNING):
            logging.getLogger("repghost_ros.zoo.store").log(level, "kept %s", "as it is")
    finally:
        handler.close()
    logging.getLogger("repghost_ros.zoo.store").error("said too late")
    wait_until(lambda: len(told) == 3, "three lines")
    assert [each.level for each in told] == [30, 40, 30]
    assert {each.msg for each in told} == {"kept as it is"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model:=777"], "parameter 'model' cannot be '777'"),
        (["top_k:=0"], "parameter 'top_k' is refused"),
        (["model_path:=/absent.onnx", "required:=true"], "'/absent.onnx' does not exist"),
    ],
)
def test_why_it_does_not_start_reaches_rosout(
    robot: Robot, arguments: list[str], reason: str
) -> None:
    told = robot.collect(Log, "/rosout", ROSOUT)
    command = [sys.executable, "-m", "repghost_ros.ros.node", "--ros-args"]
    for argument in arguments:
        command += ["-p", argument]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 1
    assert ended.stdout.count(reason) == 1, ended.stdout
    assert "Traceback" not in ended.stdout
    wait_until(lambda: any(reason in each.msg for each in told), "the reason on /rosout")
    assert [each.level for each in told if reason in each.msg] == [FATAL]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--log-level", "loud"], "--log-level loud"),
        (["--params-file", "/absent.yaml"], "/absent.yaml"),
        (["-r", "__node:=1st"], "__node:=1st"),
    ],
)
@pytest.mark.parametrize("program", ["ros.node", "demo.camera", "demo.viewer"])
def test_arguments_that_ros_refuses_end_in_one_line(
    program: str, arguments: list[str], reason: str
) -> None:
    command = [sys.executable, "-m", f"repghost_ros.{program}", "--ros-args", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    (line,) = (x for x in ended.stderr.splitlines() if x.startswith("repghost: "))
    assert reason in line
    assert "Traceback" not in ended.stderr
