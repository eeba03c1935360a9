# SPDX-License-Identifier: Apache-2.0
"""The node among others of a robot: a manager's bond, a slow network, latched announcements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bond.msg import Status
from helpers.graph import LATCHED, RELIABLE, Robot, best, image, running_node, sign, wait_until
from helpers.server import served
from helpers.waiting import WAIT
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from vision_msgs.msg import LabelInfo, VisionInfo

from repghost_ros.paths import share
from repghost_ros.ros import messages
from repghost_ros.ros.bond import Bond
from repghost_ros.ros.lifecycle import LifecycleNode

DISTRIBUTION = os.environ.get("ROS_DISTRO", "")


def of_manager(robot: Robot, bonds: list[Any]) -> list[Any]:
    return [each for each in bonds if each.id == robot.name]


def test_a_lifecycle_manager_gets_its_bond(robot: Robot) -> None:
    bonds = robot.collect(Status, "bond")
    with running_node(autostart="false"):
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        # One after the other: the manager gives up where none came for a while.
        wait_until(lambda: len(of_manager(robot, bonds)) >= 3, "statuses of the bond")
        assert all(each.active for each in of_manager(robot, bonds))
        assert len({each.instance_id for each in of_manager(robot, bonds)}) == 1
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
        wait_until(lambda: not bonds[-1].active, "the end of the bond")
        # Activated again it is another bond.
        first = bonds[-1].instance_id
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        wait_until(lambda: bonds[-1].active and bonds[-1].instance_id != first, "another bond")


def test_a_bond_that_the_manager_ends_is_ended(robot: Robot) -> None:
    bonds = robot.collect(Status, "bond")
    with running_node(autostart="false"):
        robot.change_state(Transition.TRANSITION_CONFIGURE)
        robot.change_state(Transition.TRANSITION_ACTIVATE)
        publisher = robot.publisher("bond", Status)
        publisher.publish(Status(id="somebody_else", instance_id="manager", active=False))
        publisher.publish(Status(id=robot.name, instance_id="manager", active=False))

        def ended() -> bool:
            return any(not s.active and s.instance_id != "manager" for s in bonds)

        wait_until(ended, "the answer to the manager's farewell")


_MANAGER = """
import rclpy
from bond.msg import Status
from rclpy.qos import QoSProfile
rclpy.init()
node = rclpy.create_node("manager")
node.create_subscription(Status, "bond", lambda s: print(s.active, flush=True), QoSProfile(depth=100))
rclpy.spin(node)
"""


@contextmanager
def manager() -> Iterator[Any]:
    """Run a process that prints which statuses it hears of; it is killed, stopped or not."""
    command = [sys.executable, "-c", _MANAGER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Talker(LifecycleNode):
    """Publishes the same message as a bond does at its end."""

    def __init__(self, robot: Robot) -> None:
        super().__init__("talker", context=robot.context)
        self.serve_transitions()
        self.trigger_configure()
        self.trigger_activate()

    def configure(self) -> None:
        self.publisher = self.create_lifecycle_publisher(Status, "bond", QoSProfile(depth=5))

    def activate(self) -> None:
        wait_until(lambda: self.publisher.get_subscription_count() == 1, "the manager")
        self.publisher.publish(Status(active=True))

    def deactivate(self) -> None:
        self.publisher.publish(Status(active=False))

    def cleanup(self) -> None:
        self.destroy_lifecycle_publisher(self.publisher)

    def close(self) -> None:
        self.destroy_node()


@pytest.mark.parametrize("make", [lambda robot: Bond(robot.node), Talker], ids=["bond", "answers"])
def test_the_last_message_reaches_a_subscriber_that_was_held_up(
    robot: Robot, make: Callable[[Robot], Any]
) -> None:
    """The publisher is not destroyed before the subscriber has the message."""
    with manager() as process:
        heard = process.stdout
        publisher = make(robot)
        assert heard.readline() == "True\n"
        process.send_signal(signal.SIGSTOP)
        closing = threading.Thread(target=publisher.close)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        process.send_signal(signal.SIGCONT)
        closing.join(WAIT)
        assert "False\n" in iter(heard.readline, "")


def test_a_bond_is_ended_though_the_manager_hangs(robot: Robot) -> None:
    with manager() as process:
        heard = process.stdout
        bond = Bond(robot.node)
        assert heard.readline() == "True\n"
        process.send_signal(signal.SIGSTOP)
        bond.close()


def test_without_a_manager_there_is_no_bond(robot: Robot) -> None:
    with running_node():
        robot.answer(robot.publisher(), image(sign("stop"), stamp=1))

        def published() -> dict[str, list[str]]:
            """Of this node: a process that was killed stays in the graph for a while."""
            return dict(robot.node.get_publisher_names_and_types_by_node("repghost", "/"))

        wait_until(lambda: "/repghost/classification" in published(), "the graph to be known")
        assert "/bond" not in published()


def test_labels_are_latched_and_counted(robot: Robot, tmp_path: Path) -> None:
    demo = (share() / "labels" / "demo.txt").read_text().splitlines()
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"sign {name}" for name in demo))
    with running_node():
        robot.publisher()
        infos = robot.collect(VisionInfo, "/repghost/vision_info", LATCHED)
        maps = robot.collect(LabelInfo, "/repghost/label_info", LATCHED)
        wait_until(lambda: infos and maps, "what was published before")
        assert infos[-1].database_version == 0
        assert [each.class_name for each in maps[-1].class_map] == demo
        assert [each.class_id for each in maps[-1].class_map] == list(range(len(demo)))
        assert robot.set_parameter("labels_path", str(other)).successful
        wait_until(lambda: len(infos) == 2 and len(maps) == 2, "the other labels")
        assert infos[-1].database_version == 1
        assert maps[-1].class_map[0].class_name == f"sign {demo[0]}"


def test_services_are_answered_while_a_download_stalls(robot: Robot, tmp_path: Path) -> None:
    end = threading.Event()

    class Stalled(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "10000000")
            self.end_headers()
            self.wfile.write(b"\x08" * 1000)
            self.wfile.flush()
            end.wait(60)

        def log_message(self, *arguments: object) -> None:
            pass

    with (
        served(Stalled, tmp_path) as environment,
        running_node(env=environment, model="100", backend="onnx"),
    ):
        wait_until(lambda: robot.state() == "configuring", "the download to begin")
        assert robot.get_parameter("top_k") == 5
        assert robot.set_parameter("top_k", 3).successful
        assert robot.state() == "configuring"
    # The context interrupted the node, which ended with 0 though nothing more came.
    end.set()


def test_a_download_that_failed_is_begun_again(robot: Robot, tmp_path: Path) -> None:
    demo = (share() / "models" / "demo.onnx").read_bytes()
    asked: list[str] = []

    class Recovering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) == 1:
                self.connection.close()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(demo)))
            self.end_headers()
            self.wfile.write(demo)

        def log_message(self, *arguments: object) -> None:
            pass

    with (
        served(Recovering, tmp_path) as environment,
        running_node(
            env=environment,
            model="100",
            backend="onnx",
            labels_path=str(share() / "labels" / "demo.txt"),
        ) as node,
    ):
        wait_until(lambda: "downloading again in" in node.output(), "the retry to be announced")
        publisher = robot.publisher()
        assert robot.answer(publisher, image(sign("stop"), stamp=1)).results
    assert len(asked) > 1


def test_a_required_model_that_cannot_be_opened_ends_the_process() -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)ended with 1.*does not exist"),
        running_node(model_path="/absent.onnx", required="true") as node,
    ):
        assert node.process.wait(WAIT) == 1


def test_it_says_what_it_serves(robot: Robot) -> None:
    with running_node(qos_reliability="reliable") as node:
        robot.publisher("image", qos=RELIABLE)
        wait_until(lambda: "serving" in node.output(), "the line")
        line = next(line for line in node.output().splitlines() if "serving" in line)
    assert "/image" in line
    assert "reliable, depth 5" in line
    assert "/repghost/classification" in line


def test_a_change_of_the_top_class_that_lasts_is_told(robot: Robot) -> None:
    with running_node(hold="1.5"):
        publisher = robot.publisher()
        changed = robot.collect(messages.Classification, "/repghost/changed")
        robot.publisher("image")
        film = ["stop", "stop", "stop", "yield", "stop", "yield", "yield", "yield"]
        for stamp, name in enumerate(film, 1):  # a stamp of 0 is none
            robot.answer(publisher, image(sign(name), stamp=stamp))
        wait_until(lambda: len(changed) >= 2, "both changes")
    assert [(best(each), each.header.stamp.sec) for each in changed] == [("stop", 3), ("yield", 8)]


def test_images_without_stamps_are_held_by_their_arrival(robot: Robot) -> None:
    with running_node(hold="0.2") as node:
        publisher = robot.publisher()
        changed = robot.collect(messages.Classification, "/repghost/changed")
        robot.publisher("image")

        def has_changed() -> bool:
            publisher.publish(image(sign("stop"), stamp=0))
            return bool(changed)

        wait_until(has_changed, "the change")
        assert best(changed[0]) == "stop"
        wait_until(lambda: "header.stamp of zero" in node.output(), "the warning")
        assert node.output().count("header.stamp of zero") == 1


def test_the_security_policy_allows_what_the_node_does(robot: Robot) -> None:
    """Whatever is switched on, and nothing else; rcl's own topics of every node are in it too."""
    policy = ElementTree.parse(share() / "config" / "sros2_policy.xml")

    def allowed(kind: str, tag: str) -> set[str]:
        names = {e.text or "" for e in policy.iterfind(f".//{kind}/{tag}")}
        return {robot.node.resolve_topic_name(n.replace("~", "/repghost")) for n in names}

    has_ai_msgs = find_spec("ai_msgs") is not None  # from the RDK
    perception = str(has_ai_msgs).lower()
    with running_node(autostart="false", hold="1.0", perception=perception, use_sim_time="true"):
        robot.change_state(Transition.TRANSITION_CONFIGURE)
        robot.change_state(Transition.TRANSITION_ACTIVATE)
        of_node = ("repghost", "/")
        wait_until(
            lambda: "/bond" in dict(robot.node.get_publisher_names_and_types_by_node(*of_node)),
            "the graph to be known",
        )
        published = dict(robot.node.get_publisher_names_and_types_by_node(*of_node))
        subscribed = dict(robot.node.get_subscriber_names_and_types_by_node(*of_node))
        served = dict(robot.node.get_service_names_and_types_by_node(*of_node))
    published_elsewhere = set() if has_ai_msgs else {"/repghost/perception"}
    assert published.keys() == allowed("topics[@publish]", "topic") - published_elsewhere
    assert subscribed.keys() | {"/image/compressed"} == allowed("topics[@subscribe]", "topic")
    # From Jazzy on, nodes serve the definitions of their types.
    served_elsewhere = {"/repghost/get_type_description"} if DISTRIBUTION == "humble" else set()
    assert served.keys() == allowed("services[@reply]", "service") - served_elsewhere
