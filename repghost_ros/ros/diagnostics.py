# SPDX-License-Identifier: Apache-2.0
"""Reports -> diagnostic_msgs (REP 107), with the level a robot's supervisor acts on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Header

from repghost_ros.engine.host import ModelHost
from repghost_ros.engine.monitor import CameraReport, Latency
from repghost_ros.engine.request import COUNT_NAMES
from repghost_ros.ros.compat import QOS_OVERRIDES
from repghost_ros.ros.threads import Heartbeat


class Diagnostics:
    """Publishes /diagnostics periodically until closed, however busy the executor is.

    Args:
        node: the publisher.
        period: seconds between two messages.
        statuses: returns the statuses of one message, over the time since the last one.
        omit: called instead where nobody subscribes: making the message costs milliseconds.

    """

    def __init__(
        self,
        node: Node,
        period: float,
        statuses: Callable[[], list[DiagnosticStatus]],
        omit: Callable[[], None],
    ) -> None:
        self._node = node
        self._statuses = statuses
        self._omit = omit
        self._publisher = node.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            10,
            qos_overriding_options=QOS_OVERRIDES,
        )
        self._heartbeat = Heartbeat(node.context, period, self._publish)

    def _publish(self) -> None:
        if not self._publisher.get_subscription_count():
            self._omit()
            return
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(
            DiagnosticArray(header=Header(stamp=stamp), status=self._statuses())
        )

    def close(self) -> None:
        """Stop; returns once nothing is being published."""
        self._heartbeat.close()


@dataclass(frozen=True)
class Thresholds:
    """Limits beyond which a camera is no longer OK."""

    min_rate: float
    """Answers a second, below which it warns; 0 for none."""
    max_latency: float
    """Seconds of end-to-end p99 latency, above which it warns; 0 for none."""
    stale_after: float
    """Seconds without a frame, after which it is stale."""


def camera_status(
    name: str,
    hardware_id: str,
    report: CameraReport,
    thresholds: Thresholds,
    paused: str = "",
    values: Mapping[str, str] = MappingProxyType({}),
) -> DiagnosticStatus:
    """Return a camera's status.

    Args:
        name: `node: camera`.
        hardware_id: the model's runtime.
        report: the statistics of the period that just ended.
        thresholds: limits beyond which it is no longer OK.
        paused: why no image is classified, empty if they are.
        values: further facts.

    """
    level, message = _judge(report, thresholds, paused)
    return _status(
        name,
        hardware_id,
        level,
        message,
        {
            "input rate (Hz)": f"{report.input_rate:.2f}",
            "output rate (Hz)": f"{report.output_rate:.2f}",
            **_counts(report),
            **_latency("convert", report.convert),
            **_latency("inference", report.infer),
            **_latency("end-to-end", report.end_to_end),
            **values,
            "last error": report.last_error,
        },
    )


def model_status(
    name: str, host: ModelHost, model: str, workers: int, watchdog: float
) -> DiagnosticStatus:
    """Return the model's status.

    Args:
        name: `node: model`.
        host: holds the model.
        model: the requested model, shown until one is open.
        workers: frames converted and inferred at the same time.
        watchdog: seconds after which a frame in flight hangs.

    """
    opened = host.model
    level, message = _judge_model(host, watchdog)
    values = {
        "model": opened.name if opened else model,
        "path": str(opened.path) if opened else "",
        "opening": host.activity,
        "workers": str(workers),
    }
    return _status(name, opened.runtime if opened else "", level, message, values)


def _status(
    name: str, hardware_id: str, level: bytes, message: str, values: dict[str, str]
) -> DiagnosticStatus:
    """Return a DiagnosticStatus with these values."""
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def _judge(report: CameraReport, thresholds: Thresholds, paused: str) -> tuple[bytes, str]:
    if report.counts.failed:
        return DiagnosticStatus.ERROR, f"the backend failed: {report.last_error}"
    if paused:
        return DiagnosticStatus.OK, paused
    if report.idle > thresholds.stale_after:
        return DiagnosticStatus.STALE, f"no frame for {report.idle:.1f} s"
    if report.counts.refused:
        return DiagnosticStatus.WARN, f"frames refused: {report.last_error}"
    if report.output_rate < thresholds.min_rate:
        return (
            DiagnosticStatus.WARN,
            f"{report.output_rate:.1f} answers per second, min_rate is {thresholds.min_rate:g}",
        )
    if thresholds.max_latency and report.end_to_end.p99 > thresholds.max_latency:
        return (
            DiagnosticStatus.WARN,
            f"latency {report.end_to_end.p99 * 1e3:.1f} ms, wanted {thresholds.max_latency * 1e3:g}",
        )
    if report.counts.dropped:
        return DiagnosticStatus.WARN, f"{report.counts.dropped} frames made way for newer ones"
    return DiagnosticStatus.OK, "classifying"


def _judge_model(host: ModelHost, watchdog: float) -> tuple[bytes, str]:
    activity = host.activity
    if host.pipeline is None and activity:  # again, where there is a fault, too
        return DiagnosticStatus.WARN, activity
    if host.fault:
        return DiagnosticStatus.ERROR, host.fault
    if host.pipeline is None:
        return DiagnosticStatus.WARN, "not active"
    if host.hangs(watchdog):
        return DiagnosticStatus.ERROR, "the backend hangs"
    return DiagnosticStatus.OK, "active"


def _counts(report: CameraReport) -> dict[str, str]:
    values = {name: str(getattr(report.counts, name)) for name in COUNT_NAMES}
    return {f"frames {'in' if name == 'received' else name}": n for name, n in values.items()}


def _latency(name: str, latency: Latency) -> dict[str, str]:
    return {
        f"{name} latency p50 (ms)": f"{latency.p50 * 1e3:.2f}",
        f"{name} latency p99 (ms)": f"{latency.p99 * 1e3:.2f}",
    }
