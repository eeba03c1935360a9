# SPDX-License-Identifier: Apache-2.0
"""Answers as ai_msgs/PerceptionTargets, for the RDK's own nodes and its websocket page."""

from __future__ import annotations

from typing import Any

from rclpy.time import Time
from std_msgs.msg import Header

from repghost_ros.engine.model import Answered
from repghost_ros.engine.results import Result
from repghost_ros.errors import need


def message_type() -> Any:
    """Return the type PerceptionTargets.

    Raises:
        DependencyError: ai_msgs is not installed.

    """
    return _messages().PerceptionTargets


def _messages() -> Any:
    return need(
        "ai_msgs.msg",
        "source the RDK's own ROS, /opt/tros/humble/setup.bash, or set perception to false",
    )


def targets(answered: Answered[Any], header: Header, now: Time) -> Any:
    """Return a frame's answer and the duration of its steps.

    Args:
        answered: the frame.
        header: the image's.
        now: the time at which the answer is published.

    """
    ai, times = _messages(), answered.times

    def stamp(monotonic: float) -> Any:
        since = now.nanoseconds - round((times.inferred - monotonic) * 1e9)
        return Time(nanoseconds=max(0, since)).to_msg()

    def perf(step: str, begin: float, end: float) -> Any:
        return ai.Perf(
            type=f"repghost_{answered.model.name}_{step}",
            stamp_start=stamp(begin),
            stamp_end=stamp(end),
            time_ms_duration=(end - begin) * 1e3,
        )

    found = ai.PerceptionTargets(header=header, fps=-1)  # below 0: unknown
    found.perfs = [
        perf("preprocess", times.started, times.converted),
        perf("predict_infer", times.converted, times.inferred),
        perf("pipeline", answered.request.received, times.inferred),
    ]
    found.targets = [
        ai.Target(
            type=result.class_id,
            rois=[ai.Roi(type="classification", confidence=result.score)],
            attributes=[attribute(result, "classification")],
        )
        for result in answered.results
    ]
    return found


def attribute(result: Result, kind: str = "") -> Any:
    """Return a class as an ai_msgs/Attribute, whose value is the class index, -1 if that is unknown.

    Args:
        result: the class.
        kind: the attribute's type; empty: the class's name.

    """
    return _messages().Attribute(
        type=kind or result.class_id,
        value=float(-1 if result.index is None else result.index),
        confidence=result.score,
    )
