# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: images in, vision_msgs classifications out."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from repghost_ros.engine.host import ModelHost
from repghost_ros.engine.model import Model
from repghost_ros.errors import ParameterError, StoreError
from repghost_ros.ros.announcement import check_labels
from repghost_ros.ros.autostart import Autostart
from repghost_ros.ros.diagnostics import Diagnostics, model_status
from repghost_ros.ros.lifecycle import LifecycleNode
from repghost_ros.ros.parameters import Parameters, Settings, coerced, declare_parameters
from repghost_ros.ros.process import last_words, run, start
from repghost_ros.ros.rig import CameraRig
from repghost_ros.ros.switching import ModelSwitch

_WATCH_PERIOD = 0.25  # seconds


class ClassifierNode(LifecycleNode):
    """Classifies every frame of its cameras; docs/node.md lists its topics and parameters.

    Args:
        node_name: name of the node.
        kwargs: passed on to rclpy's node, so that it composes into any process and executor.

    Raises:
        ParameterError: an initial parameter value is refused.

    """

    def __init__(self, node_name: str = "repghost", **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        try:
            self._settings = Settings(declare_parameters(self))
        except ParameterError as error:
            last_words(self, str(error))
            super().destroy_node()
            raise
        self._host = ModelHost(self.get_logger(), self._log_progress, self._check)
        self._switch = ModelSwitch(self, self._host, self._revert)
        self._rig = CameraRig(self, self._settings)
        self._autostart: Autostart | None = None
        if self._current.autostart:
            self._autostart = Autostart(self, required=self._current.required)
        self._diagnostics = Diagnostics(
            self, self._current.diagnostics_period, self._statuses, self._rig.end_period
        )
        self.add_on_set_parameters_callback(self._validate)
        self.create_service(SetBool, "~/enable", self._enable)
        # Steady time: with use_sim_time there may be no clock yet, or one that jumps.
        self.create_timer(_WATCH_PERIOD, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.serve_transitions()

    @property
    def _current(self) -> Parameters:
        return self._settings.parameters

    @property
    def failed(self) -> bool:
        """True if the process is to end because the model that it requires cannot be opened."""
        return self._autostart is not None and self._autostart.failed

    def destroy_node(self) -> None:
        """Stop, unload and leave the graph."""
        self.end()
        if self._autostart is not None:
            self._autostart.close()
        self._diagnostics.close()
        super().destroy_node()

    # --- lifecycle -------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the model and advertise the topics."""
        self._switch.open(lambda: self._current)
        self._rig.advertise()

    def activate(self) -> None:
        """Start the workers and subscribe."""
        if self._host.model is None:  # it hung when the node was deactivated
            self._switch.open(lambda: self._current)
        pipeline = self._host.start(self._current.workers)
        self._rig.open(pipeline, self._host.model)
        if self._autostart is None:  # Nav2's lifecycle manager waits for one
            self.form_bond()

    def deactivate(self) -> None:
        """Unsubscribe, answer the frames in flight and end the workers."""
        self._rig.close()
        self._host.stop(self._current.watchdog)

    def cleanup(self) -> None:
        """Unload the model and withdraw the topics."""
        self._host.close()
        self._rig.withdraw()

    def report_failure(self, error: Exception) -> None:
        """Show in the log and in diagnostics why the node is not active."""
        self._host.set_fault(str(error))
        if self._autostart is None or not self._autostart.report_failure(error):
            super().report_failure(error)

    # --- parameters ------------------------------------------------------------------------------

    def _validate(self, parameters: list[Parameter]) -> SetParametersResult:
        """Refuse values that cannot work; nothing is applied, another callback may still refuse."""
        try:
            self._switch.check(self._current, self._current.changed(parameters))
            check_labels(parameters, self._host.model)
        except Exception as error:  # raised further it would end the process
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def coerce_parameters(self, parameter_list: list[Parameter]) -> list[Parameter]:
        """Return the values in the parameters' own types."""
        return coerced(parameter_list)

    def apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Act on what was set: another model is opened beside the old one."""
        before = self._current
        self._settings.parameters = before.changed(parameter_list)
        self.get_logger().debug(f"set {', '.join(f'{p.name}={p.value}' for p in parameter_list)}")
        result = self._switch.follow(before, self._current)
        self._rig.follow(self._host.model)
        return result

    def _revert(self, answering: Parameters) -> None:
        """Set the parameters back to those of the model that answers."""
        old = answering.of_model()
        self._settings.parameters = replace(self._current, **old)
        self.restore_parameters([Parameter(name, value=value) for name, value in old.items()])

    # --- the model -------------------------------------------------------------------------------

    def _log_progress(self, done: int, total: int) -> None:
        if self.is_ending:
            raise StoreError("the download was interrupted: the next start resumes it")
        self.get_logger().info(
            f"downloading: {done / 1e6:.1f} of {total / 1e6:.1f} MB", throttle_duration_sec=2.0
        )

    def _check(self, model: Model) -> None:
        self._current.reporting.check(model.labels)
        self.get_logger().info(
            f"images are fitted to '{model.name}' by resize: {model.fitting(self._current.view)}"
        )

    # --- supervision -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Take over what was opened meanwhile; reopen the model if it fails or hangs."""
        error = self._switch.poll()
        if error is not None:
            self.get_logger().error(f"the model stays as it is: {error}")
        self._rig.follow(self._host.model)
        self._host.watch(self._rig.counts, self._current.spec, self._current.watchdog)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Answer `~/enable`: classify images, or skip them until the next request."""
        self._settings.enabled = request.data
        response.success = True
        response.message = "classifying" if self._settings.enabled else "skipping all images"
        self.get_logger().info(f"~/enable: {response.message}")
        return response

    def _statuses(self) -> list[DiagnosticStatus]:
        """Return the status of every camera while active, and that of the model."""
        name = self.get_fully_qualified_name().lstrip("/")
        now = self._current
        runtime = self._host.model.runtime if self._host.model else ""
        cameras = self._rig.statuses(name, runtime) if self._host.pipeline is not None else []
        model = model_status(f"{name}: model", self._host, now.model, now.workers, now.watchdog)
        return [*cameras, model]


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    start(args)
    try:
        node = ClassifierNode()
    except ParameterError:  # the node has logged it
        sys.exit(1)
    run(node, lambda: node.failed)
    if node.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
