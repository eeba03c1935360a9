# SPDX-License-Identifier: Apache-2.0
"""The node's answers: their content, time and QoS."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from helpers.graph import Robot, image, running_node, sign, wait_until
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Log
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool

from repghost_ros.ros import messages


def classes(answer: Any) -> list[str]:
    """Return the reported classes, best first."""
    return [result.class_id for result in messages.results(answer)]


def test_only_allowed_classes_are_reported(robot: Robot) -> None:
    with running_node(class_deny="[stop]", top_k="17"):
        publisher = robot.publisher()
        without = classes(robot.answer(publisher, image(sign("stop"), stamp=1)))
        assert len(without) == 16
        assert "stop" not in without
        assert robot.set_parameter("class_allow", ["yield", "stop", "no entry"]).successful
        answer = robot.answer(publisher, image(sign("stop"), stamp=2))
        assert sorted(classes(answer)) == ["no entry", "yield"]
        assert messages.results(answer)[0].score < 0.5  # as among all classes
        refused = robot.set_parameter("class_allow", ["yeild"])
        assert "no class 'yeild': did you mean 'yield'?" in refused.reason
        refused = robot.set_parameter("class_allow", ["stop"])
        assert "leave no class" in refused.reason
        for name in ("class_allow", "class_deny"):
            assert robot.set_parameter(name, [""]).successful
        answer = robot.answer(publisher, image(sign("stop"), stamp=3))
        assert classes(answer)[0] == "stop"


def test_a_model_without_the_allowed_classes_is_refused(robot: Robot, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"sign {number}" for number in range(17)))
    with running_node(class_allow="[stop]"):
        publisher = robot.publisher()
        assert "the model has no class 'stop'" in robot.refusal("labels_path", str(labels))
        assert robot.get_parameter("labels_path") == ""
        assert classes(robot.answer(publisher, image(sign("yield"), stamp=1))) == ["stop"]


def test_an_unknown_class_at_the_start_is_told(robot: Robot) -> None:
    with running_node(class_deny="[stpo]") as node:
        wait_until(lambda: "did you mean 'stop'?" in node.output(), "the reason")
        assert robot.state() == "unconfigured"
        assert robot.set_parameter("class_deny", ["stop"]).successful
        assert robot.change_state(1)  # configure


def best_of(answer: Any) -> tuple[str, float]:
    result = messages.results(answer)[0]
    return result.class_id, result.score


def test_scores_are_smoothed_over_time(robot: Robot) -> None:
    with running_node(smoothing="0.9", hold="0.001"):
        changes = robot.collect(messages.Classification, "/repghost/changed")
        publisher = robot.publisher()
        first = robot.answer(publisher, image(sign("stop"), stamp=5))
        second = robot.answer(publisher, image(sign("yield"), stamp=6))
        assert best_of(first)[0] == best_of(second)[0] == "stop"
        assert 0.8 < best_of(second)[1] < best_of(first)[1]
        # Another scene: the stamps go back.
        assert best_of(robot.answer(publisher, image(sign("yield"), stamp=4)))[0] == "yield"
        assert robot.set_parameter("smoothing", 0.0).successful
        assert best_of(robot.answer(publisher, image(sign("no entry"), stamp=7)))[0] == "no entry"
        # Only there was the smoothed top class the same in two frames.
        wait_until(lambda: changes, "the change")
        assert [(best_of(each)[0], each.header.stamp.sec) for each in changes] == [("stop", 6)]


def enable(robot: Robot, data: bool) -> Any:
    return robot.call(SetBool, "enable", SetBool.Request(data=data))


def subscribers(robot: Robot) -> int:
    return robot.node.count_subscribers("/image")


def told(received: list[Any]) -> tuple[bytes, str]:
    """Level and message of the camera's last status."""
    for array in reversed(received):
        for status in array.status:
            if status.name == "repghost: image":
                return status.level, status.message
    return b"", ""


def skipped(received: list[Any]) -> int:
    """Frames that the camera's statuses say were skipped."""
    statuses = [s for array in received for s in array.status if s.name == "repghost: image"]
    return sum(int(v.value) for s in statuses for v in s.values if v.key == "frames skipped")


def test_while_disabled_frames_are_skipped(robot: Robot) -> None:
    diagnostics = robot.collect(DiagnosticArray, "/diagnostics")
    with running_node(diagnostics_period="0.1", stale_after="0.2", min_rate="1"):
        publisher = robot.publisher()
        robot.answer(publisher, image(sign("stop"), stamp=1))
        assert enable(robot, False).success
        for stamp in (2, 3, 4):
            publisher.publish(image(sign("stop"), stamp=stamp))
        wait_until(lambda: skipped(diagnostics) == 3, "the account of them")
        wait_until(lambda: told(diagnostics) == (b"\0", "disabled by ~/enable"), "the diagnostics")
        assert enable(robot, True).success
        robot.answer(publisher, image(sign("stop"), stamp=5))
        assert [c.header.stamp.sec for c in robot.classifications] == [1, 5]
        wait_until(lambda: told(diagnostics)[1] != "disabled by ~/enable", "the diagnostics")


def test_enable_is_kept_while_the_node_is_inactive(robot: Robot) -> None:
    with running_node(autostart="false"):
        assert enable(robot, False).message == "skipping all images"
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        publisher = robot.publisher()
        publisher.publish(image(sign("stop"), stamp=1))
        time.sleep(0.5)  # it would have been answered
        assert enable(robot, True).message == "classifying"
        robot.answer(publisher, image(sign("stop"), stamp=2))
        assert [c.header.stamp.sec for c in robot.classifications] == [2]


def test_a_lazy_node_subscribes_while_somebody_listens() -> None:
    robot = Robot("other")  # it listens to another node's answers
    try:
        diagnostics = robot.collect(DiagnosticArray, "/diagnostics")
        idle = (b"\0", "lazy: nobody listens")
        with running_node(lazy="true", diagnostics_period="0.1", stale_after="0.2"):
            wait_until(lambda: told(diagnostics) == idle, "the diagnostics")
            wait_until(lambda: not subscribers(robot), "no subscription")
            answers = robot.node.create_subscription(
                messages.Classification,
                "/repghost/classification",
                robot.classifications.append,
                10,
            )
            publisher = robot.publisher()
            robot.answer(publisher, image(sign("stop"), stamp=1))
            robot.node.destroy_subscription(answers)
            wait_until(lambda: not subscribers(robot), "no subscription")
    finally:
        robot.close()


def reliability(infos: Callable[[str], list[Any]], topic: str) -> str:
    """Return the reliability of the node's endpoint on a topic, once the graph knows its node."""

    def found() -> list[str]:
        return [i.qos_profile.reliability.name for i in infos(topic) if i.node_name == "repghost"]

    return str(wait_until(found, f"the node's {topic}")[0])


def test_qos_is_overridden_by_topic(robot: Robot) -> None:
    outputs = ("/diagnostics", "/repghost/vision_info", "/repghost/label_info", "/repghost/changed")
    parameters: dict[str, Any] = {
        **{f"qos_overrides.{each}.publisher.reliability": "best_effort" for each in outputs},
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./image.subscription.depth": "9",
        "qos_overrides./repghost/overlay.publisher.reliability": "best_effort",
    }
    with running_node(output_qos_reliability="best_effort", hold="1.0", **parameters) as node:
        wait_until(lambda: "inactive -> active" in node.output(), "the node")
        assert "reliable, depth 9" in node.output()
        publishers = robot.node.get_publishers_info_by_topic
        assert reliability(robot.node.get_subscriptions_info_by_topic, "/image") == "RELIABLE"
        assert reliability(publishers, "/repghost/overlay") == "BEST_EFFORT"
        assert reliability(publishers, "/repghost/classification") == "BEST_EFFORT"
        assert {reliability(publishers, each) for each in outputs} == {"BEST_EFFORT"}
        assert robot.get_parameter("qos_overrides./image.subscription.depth") == 9


def test_qos_overrides_go_by_the_remapped_name(robot: Robot) -> None:
    parameters: dict[str, Any] = {
        "qos_overrides./front/color.subscription.reliability": "reliable",
        "qos_overrides./seen.publisher.depth": "3",
    }
    names = ("-r", "image:=/front/color", "-r", "~/classification:=/seen")
    with running_node(*names, **parameters) as node:
        wait_until(lambda: "inactive -> active" in node.output(), "the node")
        infos = robot.node.get_subscriptions_info_by_topic
        assert reliability(infos, "/front/color") == "RELIABLE"
        assert robot.get_parameter("qos_overrides./seen.publisher.depth") == 3
        # Again: the parameters are there already.
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
        assert robot.change_state(Transition.TRANSITION_CLEANUP)
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        assert reliability(infos, "/front/color") == "RELIABLE"


def test_a_listener_that_asks_for_more_is_told_on_rosout(robot: Robot) -> None:
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    log = robot.collect(Log, "/rosout", latched)
    with running_node(output_qos_reliability="best_effort"):  # the robot listens reliably
        wait_until(
            lambda: [
                each
                for each in log
                if each.name == "repghost"
                and "~/classification" in each.msg
                and "RELIABILITY" in each.msg
            ],
            "the warning",
        )


def test_qos_that_makes_no_sense_is_refused(robot: Robot) -> None:
    name = "qos_overrides./image.subscription.reliability"
    parameters: dict[str, Any] = {name: "mostly"}
    with running_node(**parameters) as node:
        wait_until(lambda: "policy `reliability`: `mostly`" in node.output(), "the reason")
        assert robot.state() == "inactive"
