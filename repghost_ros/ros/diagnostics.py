"""Reports -> diagnostic_msgs (REP 107), with the level a robot's supervisor acts on."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from repghost_ros.stream.monitor import Latency, Report


@dataclass(frozen=True)
class Thresholds:
    """Beyond which a camera is no longer OK."""

    min_rate: float
    """Answers a second, below which it warns; 0 for none."""
    max_latency: float
    """Seconds of end-to-end p99 latency, above which it warns; 0 for none."""
    stale_after: float
    """Seconds without a frame, after which it is stale."""


def camera_status(
    name: str, hardware_id: str, report: Report, thresholds: Thresholds
) -> DiagnosticStatus:
    """One camera's status.

    Args:
        name: `node: camera`.
        hardware_id: what runs the model.
        report: the period that just ended.
        thresholds: beyond which it is no longer OK.

    """
    level, message = _judge(report, thresholds)
    return status(
        name,
        hardware_id,
        level,
        message,
        {
            "input rate (Hz)": f"{report.input_rate:.2f}",
            "output rate (Hz)": f"{report.output_rate:.2f}",
            "frames in": str(report.received),
            "frames answered": str(report.answered),
            "frames dropped": str(report.dropped),
            "frames skipped": str(report.skipped),
            "frames refused": str(report.refused),
            "frames failed": str(report.failed),
            **_latency("convert", report.convert),
            **_latency("inference", report.infer),
            **_latency("end-to-end", report.end_to_end),
            "last error": report.last_error,
        },
    )


def status(
    name: str, hardware_id: str, level: bytes, message: str, values: dict[str, str]
) -> DiagnosticStatus:
    """A DiagnosticStatus with these values."""
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def _judge(report: Report, thresholds: Thresholds) -> tuple[bytes, str]:
    if report.failed:
        return DiagnosticStatus.ERROR, f"the backend failed: {report.last_error}"
    if report.idle > thresholds.stale_after:
        return DiagnosticStatus.STALE, f"no frame for {report.idle:.1f} s"
    if report.refused:
        return DiagnosticStatus.WARN, f"frames refused: {report.last_error}"
    if report.output_rate < thresholds.min_rate:
        return (
            DiagnosticStatus.WARN,
            f"{report.output_rate:.1f} answers a second, wanted {thresholds.min_rate:g}",
        )
    if thresholds.max_latency and report.end_to_end.p99 > thresholds.max_latency:
        return (
            DiagnosticStatus.WARN,
            f"latency {report.end_to_end.p99 * 1e3:.1f} ms, wanted {thresholds.max_latency * 1e3:g}",
        )
    if report.dropped:
        return DiagnosticStatus.WARN, f"{report.dropped} frames made way for newer ones"
    return DiagnosticStatus.OK, "classifying"


def _latency(name: str, latency: Latency) -> dict[str, str]:
    return {
        f"{name} latency p50 (ms)": f"{latency.p50 * 1e3:.2f}",
        f"{name} latency p99 (ms)": f"{latency.p99 * 1e3:.2f}",
    }
