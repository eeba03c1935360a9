"""The lifecycle node: images in, vision_msgs classifications out."""

from __future__ import annotations

import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from vision_msgs.msg import VisionInfo

from repghost_ros.errors import BackendError, ParameterError, StoreError
from repghost_ros.model import Classifier, open_classifier
from repghost_ros.ros import messages
from repghost_ros.ros.camera import Channel
from repghost_ros.ros.diagnostics import camera_status, status
from repghost_ros.ros.executors import init, interrupted, run
from repghost_ros.ros.heartbeat import Heartbeat
from repghost_ros.ros.intake import Intake
from repghost_ros.ros.parameters import Parameters, declare_parameters
from repghost_ros.stream.pipeline import Pipeline

_MODEL_PARAMETERS = ("model", "model_path", "labels_path", "backend", "backend_options")
_LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_WATCH_PERIOD = 0.1  # seconds
_REOPEN_AFTER = (0.5, 30.0)  # seconds until a failed backend is reopened: at first, at most


class ClassifierNode(LifecycleNode):
    """Classifies every frame of its cameras; the README lists its topics and parameters.

    Args:
        node_name: name of the node.
        kwargs: passed on to rclpy's node, so that it composes into any process and executor.

    Raises:
        ParameterError: an initial parameter value is refused.

    """

    def __init__(self, node_name: str = "repghost", **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        self._classifier: Classifier | None = None
        self._pipeline: Pipeline | None = None
        self._intake: Intake | None = None
        self._channels: list[Channel] = []
        self._vision_info: Any = None
        self._fault = ""
        """Why there is no model that works, or empty."""
        self._answers_seen = self._failures_seen = 0
        self._reopen_delay = _REOPEN_AFTER[0]
        self._reopen_at = 0.0
        self._current = declare_parameters(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        # Steady time: with use_sim_time there may be no clock yet, or one that jumps.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_WATCH_PERIOD, self._watch, clock=steady)
        if self._current.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._heartbeat = Heartbeat(self.context, self._current.diagnostics_period, self._diagnose)

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self._classifier is not None:  # the owner was faster
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # --- lifecycle -------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and advertise the topics."""
        try:
            self._classifier = self._open(self._current)
            self._vision_info = self.create_lifecycle_publisher(
                VisionInfo, "~/vision_info", _LATCHED
            )
            for camera in [name for name in self._current.cameras if name] or [""]:
                self._channels.append(Channel(self, camera, lambda: self._current))
        except Exception as error:  # rclpy would say nothing of it
            self._unload()
            return self._refuse(error)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the workers and subscribe."""
        try:
            if self._classifier is None:  # it hung when the node was deactivated
                self._classifier = self._open(self._current)
            self._pipeline = Pipeline(self._classifier, self._current.workers)
        except Exception as error:  # rclpy would say nothing of it
            return self._refuse(error)
        self._fault = ""
        result = super().on_activate(state)
        self._announce(self._classifier)
        for channel in self._channels:
            channel.open(self._pipeline)
        reliability = ReliabilityPolicy[self._current.qos_reliability.upper()]
        qos = QoSProfile(depth=self._current.qos_depth, reliability=reliability)
        self._intake = Intake(self, qos)
        for channel in self._channels:
            self._intake.subscribe(channel.message_type, channel.topic, channel.submit)
        return result

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """What rclpy answers a change_state request with, but it raises at an impossible one."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:
            self.get_logger().error(f"the transition is refused: {error}")
            response.success = False
            return response

    def _refuse(self, error: Exception) -> TransitionCallbackReturn:
        self._fault = str(error)
        self.get_logger().error(self._fault)
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, answer the frames in work and end the workers."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the model and withdraw the topics."""
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and unload from whichever state."""
        self._stop()
        self._unload()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Stop, unload and leave the graph."""
        self._heartbeat.close()
        self._stop()
        self._unload()
        super().destroy_node()

    def _stop(self) -> None:
        self._fault = ""
        if self._intake is not None:
            self._intake.close()
            self._intake = None
        if self._pipeline is not None:
            if not self._pipeline.close(self._current.watchdog):
                self.get_logger().error("the backend hangs: leaving it behind")
                self._classifier = None  # what still runs in it must not be unloaded
            self._pipeline = None

    def _unload(self) -> None:
        if self._classifier is not None:
            self._classifier.close()
            self._classifier = None
        for channel in self._channels:
            channel.destroy()
        self._channels = []
        if self._vision_info is not None:
            self.destroy_lifecycle_publisher(self._vision_info)
            self._vision_info = None

    # --- model and parameters --------------------------------------------------------------------

    def _open(self, parameters: Parameters) -> Classifier:
        classifier = open_classifier(
            parameters.model,
            model_path=parameters.model_path,
            labels_path=parameters.labels_path,
            backend=parameters.backend,
            options=parameters.backend_options,
            progress=self._log_progress,
        )
        self.get_logger().info(
            f"model '{classifier.model}' ({classifier.classes} classes, "
            f"{classifier.width}x{classifier.height}) from {classifier.path} on {classifier.runtime}"
        )
        self._fault = ""
        return classifier

    def _log_progress(self, done: int, total: int) -> None:
        if interrupted():
            raise StoreError("the download was interrupted: the next start goes on with it")
        self.get_logger().info(
            f"downloading: {done / 1e6:.1f} of {total / 1e6:.1f} MB", throttle_duration_sec=2.0
        )

    def _announce(self, classifier: Classifier) -> None:
        """Publish which model answers from now on and the names of its classes."""
        labels = Parameter("class_labels", value=list(classifier.labels))
        if not self.has_parameter(labels.name):
            self.declare_parameter(
                labels.name,
                labels.value,
                ParameterDescriptor(description="Class names in index order; set by the node."),
                ignore_override=True,
            )
        elif list(self.get_parameter(labels.name).value) != labels.value:
            self.set_parameters([labels])
        header = Header(stamp=self.get_clock().now().to_msg())
        location = f"{self.get_fully_qualified_name()}/{labels.name}"
        method = f"RepGhost {classifier.model}"
        self._vision_info.publish(messages.vision_info(header, method, location))

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        before = self._current
        try:
            after = before.changed(parameters)
            self._check_labels(parameters)
            if any(getattr(before, name) != getattr(after, name) for name in _MODEL_PARAMETERS):
                self._swap(after)
        except Exception as error:  # raised further it would end the process
            return SetParametersResult(successful=False, reason=str(error))
        self._current = after
        return SetParametersResult(successful=True)

    def _check_labels(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            labels = self._classifier.labels if self._classifier else ()
            if parameter.name == "class_labels" and tuple(parameter.value) != labels:
                raise ParameterError("parameter 'class_labels' is set by the node: set labels_path")

    def _swap(self, parameters: Parameters) -> None:
        """Load the new model beside the old one, then let it take over between two frames."""
        old = self._classifier
        if old is None:  # unconfigured: it is loaded when the node is configured
            return
        new = self._open(parameters)
        idle = True
        if self._pipeline is not None:
            try:
                idle = self._pipeline.swap(new, parameters.watchdog)
            except BackendError:
                new.close()
                raise
        self._classifier = new
        if idle:
            old.close()
        if self._pipeline is not None:
            self._announce(new)

    # --- supervision -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Reopen the backend when it fails or hangs, ever later as long as that does not help."""
        if self._pipeline is None:
            return
        answers = sum(channel.answers for channel in self._channels)
        failures = sum(channel.failures for channel in self._channels)
        hangs = self._hangs(self._pipeline)
        answered, failed = answers > self._answers_seen, failures > self._failures_seen
        self._answers_seen, self._failures_seen = answers, failures
        now = time.monotonic()
        if not (failed or hangs):
            if answered:
                self._fault = ""
            if now - self._reopen_at > _REOPEN_AFTER[1]:
                self._reopen_delay = _REOPEN_AFTER[0]
            return
        if now < self._reopen_at:
            return
        self._reopen_at = now + self._reopen_delay
        self._reopen_delay = min(2 * self._reopen_delay, _REOPEN_AFTER[1])
        self.get_logger().error(
            f"the backend {'hangs' if hangs else 'failed'}: reopening the model"
        )
        try:
            self._swap(self._current)
        except Exception as error:
            self._fault = f"the model cannot be reopened yet: {error}"
            self.get_logger().error(self._fault)

    def _hangs(self, pipeline: Pipeline) -> bool:
        return pipeline.oldest_in_work() > self._current.watchdog

    def _diagnose(self) -> None:
        """Publish /diagnostics."""
        name = self.get_fully_qualified_name().lstrip("/")
        classifier, pipeline = self._classifier, self._pipeline
        hardware_id = classifier.runtime if classifier else ""
        statuses = []
        for channel in self._channels:
            report = channel.report()
            if report is not None and pipeline is not None:
                title = f"{name}: {channel.camera or 'image'}"
                statuses.append(camera_status(title, hardware_id, report, self._current.thresholds))
        values = {
            "model": classifier.model if classifier else self._current.model,
            "path": str(classifier.path) if classifier else "",
            "workers": str(self._current.workers),
        }
        level, message = DiagnosticStatus.OK, "active"
        if self._fault:
            level, message = DiagnosticStatus.ERROR, self._fault
        elif pipeline is None:
            level, message = DiagnosticStatus.WARN, "not active"
        elif self._hangs(pipeline):
            level, message = DiagnosticStatus.ERROR, "the backend hangs"
        statuses.append(status(f"{name}: model", hardware_id, level, message, values))
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=statuses))


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    init(args)
    try:
        node = ClassifierNode()
    except ParameterError as error:
        sys.exit(f"repghost: {error}")
    run(node)


if __name__ == "__main__":
    main()
