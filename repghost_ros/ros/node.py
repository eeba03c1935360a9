# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: images in, vision_msgs classifications out."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from repghost_ros.engine.host import ModelHost
from repghost_ros.engine.job import Counts
from repghost_ros.engine.model import Model
from repghost_ros.engine.pipeline import Pipeline
from repghost_ros.errors import DependencyError, DownloadError, ParameterError, StoreError
from repghost_ros.ros.announcement import LABELS, Announcement
from repghost_ros.ros.bond import Bond
from repghost_ros.ros.camera import Camera
from repghost_ros.ros.compat import LifecycleNode
from repghost_ros.ros.diagnostics import camera_status, model_status
from repghost_ros.ros.heartbeat import Heartbeat
from repghost_ros.ros.intake import Intake
from repghost_ros.ros.log import ToRosout
from repghost_ros.ros.parameters import SPEC, Parameters, coerced, declare_parameters
from repghost_ros.ros.process import interrupted, last_words, run, start
from repghost_ros.ros.transitions import Transitions

_RETRY_AFTER = (1.0, 60.0)  # seconds until a failed download is begun again: at first, at most
_WATCH_PERIOD = 0.1  # seconds
_POLL = 0.05  # seconds until an interrupt is seen while a model is opened
_PATIENCE = 2.0  # seconds that a parameter request waits for a model, which may take longer


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
        self._host = ModelHost(self.get_logger(), self._log_progress, self._check_classes)
        self._intake: Intake | None = None
        self._cameras: list[Camera] = []
        self._announcement: Announcement | None = None
        self._bond: Bond | None = None
        self._ending = threading.Event()
        self._changing_state = threading.RLock()
        """Held while a transition brings the topics into being, or takes them away."""
        self.failed = False
        """Whether the process is to end, for the model that it requires cannot be opened."""
        self._changing: tuple[Future[Model], Parameters] | None = None
        """A change of model that takes longer than a parameter request waits, and what was before."""
        self._starting: threading.Thread | None = None
        self._refused: Exception | None = None
        try:
            self._current = declare_parameters(self)
        except ParameterError as error:
            last_words(self, str(error))
            super().destroy_node()
            raise
        self.add_on_set_parameters_callback(self._validate)
        # Steady time: with use_sim_time there may be no clock yet, or one that jumps.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_WATCH_PERIOD, self._watch, clock=steady)
        if self._current.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._heartbeat = Heartbeat(self.context, self._current.diagnostics_period, self._diagnose)
        self._transitions = Transitions(self)
        self._enabled = True
        self.create_service(SetBool, "~/enable", self._enable)
        self._library_log = ToRosout(self)

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self._host.model is not None:  # the owner was faster
            return
        # On a thread of its own: services are answered while a model is downloaded.
        self._starting = threading.Thread(target=self._start, name="autostart", daemon=True)
        self._starting.start()

    def _start(self) -> None:
        """Configure and activate; a download that failed is retried with exponential back-off."""
        delay = _RETRY_AFTER[0]
        while not self._is_ending():
            done = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
            if done and self.trigger_activate() == TransitionCallbackReturn.SUCCESS:
                return
            if self._current.required:
                self.failed = True
                return
            if not isinstance(self._refused, DownloadError):
                return
            self.get_logger().warning(f"downloading again in {delay:.0f} s")
            self._sleep(delay)
            delay = min(2 * delay, _RETRY_AFTER[1])

    def _is_ending(self) -> bool:
        return self._ending.is_set() or interrupted()

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_ending():
            time.sleep(_POLL)

    # --- lifecycle -------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and advertise the topics."""
        try:
            self._open_model()
            with self._changing_state:
                self._announcement = Announcement(self)
                for camera in [name for name in self._current.cameras if name] or [""]:
                    self._cameras.append(
                        Camera(self, camera, lambda: self._current, lambda: self._enabled)
                    )
        except Exception as error:  # rclpy would say nothing of it
            self._unload()
            return self._refuse(error)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the workers and subscribe."""
        try:
            if self._host.model is None:  # it hung when the node was deactivated
                self._open_model()
            pipeline = self._host.start(self._current.workers)
            with self._changing_state:
                super().on_activate(state)
                self._open_topics(pipeline)
        except Exception as error:  # rclpy would say nothing of it
            self.on_deactivate(state)
            return self._refuse(error)
        return TransitionCallbackReturn.SUCCESS

    def _open_topics(self, pipeline: Pipeline) -> None:
        self._announce()
        for camera in self._cameras:
            camera.open(pipeline)
        self._intake = Intake(self)
        for camera in self._cameras:
            camera.subscription = self._intake.subscribe(
                camera.sources, self._current.image_qos, camera.submit
            )
            qos = camera.subscription.qos
            self.get_logger().info(
                f"serving {camera.sources[0]}, {qos.reliability.name.lower()}, depth {qos.depth}, on "
                f"{camera.answers_topic}"
            )
        if not self._current.autostart:
            self._form_bond()

    def _form_bond(self) -> None:
        """Nav2's lifecycle manager waits for one."""
        try:
            self._bond = Bond(self)
        except DependencyError as error:
            self.get_logger().info(f"no bond with a lifecycle manager: {error}")

    def _refuse(self, error: Exception) -> TransitionCallbackReturn:
        self._refused = error
        self._host.fault = str(error)
        if self._current.required and self._starting is threading.current_thread():
            last_words(self, self._host.fault)
        else:
            self.get_logger().error(self._host.fault)
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, answer the frames in flight and end the workers."""
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
        self._ending.set()
        if self._starting is not None:
            self._starting.join()
        self._transitions.close()
        self._heartbeat.close()
        self._stop()
        self._unload()
        self._library_log.close()
        super().destroy_node()

    def _stop(self) -> None:
        with self._changing_state:
            if self._bond is not None:
                self._bond.close()
                self._bond = None
            if self._intake is not None:
                self._intake.close()
                self._intake = None
        self._host.stop(self._current.watchdog)

    def _unload(self) -> None:
        self._host.close()
        with self._changing_state:
            for camera in self._cameras:
                camera.destroy()
            self._cameras = []
            if self._announcement is not None:
                self._announcement.destroy()
                self._announcement = None

    # --- model and parameters --------------------------------------------------------------------

    def _open_model(self) -> None:
        spec = None
        while spec != self._current.spec:  # a parameter may be set meanwhile
            spec = self._current.spec
            opening = self._host.open(spec)
            while not opening.done() and not self._is_ending():
                wait([opening], _POLL)
            if not opening.done():
                raise StoreError("interrupted while the model was being opened")
            opening.result()

    def _log_progress(self, done: int, total: int) -> None:
        if self._is_ending():
            raise StoreError("the download was interrupted: the next start resumes it")
        self.get_logger().info(
            f"downloading: {done / 1e6:.1f} of {total / 1e6:.1f} MB", throttle_duration_sec=2.0
        )

    def _check_classes(self, model: Model) -> None:
        self._current.reporting.check(model.labels)

    def _announce(self) -> None:
        """Publish which model answers, unless that is known."""
        with self._changing_state:
            if self._host.model is not None and self._announcement is not None:
                self._announcement.announce(self._host.model, self._current.score_threshold)

    def _validate(self, parameters: list[Parameter]) -> SetParametersResult:
        """Refuse what cannot be; nothing is applied, another callback may still refuse."""
        try:
            after = self._current.changed(parameters)
            for parameter in parameters:
                self._check_labels(parameter)
            if self._host.model is not None and after.spec != self._current.spec:
                after.spec.check()
            elif self._host.model is not None and after.reporting != self._current.reporting:
                after.reporting.check(self._host.model.labels)
        except Exception as error:  # raised further it would end the process
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _check_labels(self, parameter: Parameter) -> None:
        labels = self._host.model.labels if self._host.model else ()
        if parameter.name == LABELS and tuple(parameter.value) != labels:
            raise ParameterError("parameter 'class_labels' is set by the node: set labels_path")

    def coerce_parameters(self, parameter_list: list[Parameter]) -> list[Parameter]:
        """What was set, in the types that the parameters have."""
        return coerced(parameter_list)

    def apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Act on what was set: another model is opened beside the old one, which answers until then.

        A request waits for that model for a moment, to tell whether it works. What takes longer, such
        as a download, goes on; where it fails, the parameters are set back to the model that answers.
        """
        before, self._current = self._current, self._current.changed(parameter_list)
        self.get_logger().debug(f"set {', '.join(f'{p.name}={p.value}' for p in parameter_list)}")
        if self._host.model is None or self._current.spec == before.spec:
            return SetParametersResult(successful=True)
        opening = self._host.open(self._current.spec, self._current.watchdog)
        wait([opening], _PATIENCE)
        if not opening.done():
            self._changing = opening, before
            return SetParametersResult(
                successful=True, reason="the model is being opened: see the log and /diagnostics"
            )
        return self._opened(opening, before)

    def _opened(self, opening: Future[Model], before: Parameters) -> SetParametersResult:
        error = opening.exception()
        if error is None:
            if self._host.pipeline is not None:
                self._announce()
            return SetParametersResult(successful=True)
        old = {name: getattr(before, name) for name in (*SPEC, "class_allow", "class_deny")}
        self._current = replace(self._current, **old)
        self.restore_parameters([Parameter(name, value=value) for name, value in old.items()])
        return SetParametersResult(successful=False, reason=str(error))

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Answer `~/enable`: classify images, or skip them until the next request."""
        self._enabled = request.data
        response.success = True
        response.message = "classifying" if self._enabled else "skipping all images"
        self.get_logger().info(f"~/enable: {response.message}")
        return response

    def _follow_demand(self) -> None:
        """If lazy, subscribe for the cameras that somebody listens to and no others."""
        with self._changing_state:
            for camera in self._cameras if self._intake is not None else ():
                assert self._intake is not None
                assert camera.subscription is not None
                wanted = not self._current.lazy or camera.has_listeners
                self._intake.pause(camera.subscription, paused=not wanted)

    # --- supervision -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Take over what was opened meanwhile; reopen the model where it fails or hangs."""
        if self._changing is not None and self._changing[0].done():
            changed, self._changing = self._changing, None
            result = self._opened(*changed)
            if not result.successful:
                self.get_logger().error(f"the model stays as it is: {result.reason}")
        if self._intake is not None:
            self._announce()
            self._follow_demand()
        counts = sum((camera.counts for camera in self._cameras), start=Counts())
        self._host.watch(counts, self._current.spec, self._current.watchdog)

    def _diagnose(self) -> None:
        """Publish /diagnostics."""
        name = self.get_fully_qualified_name().lstrip("/")
        now = self._current
        runtime = self._host.model.runtime if self._host.model else ""
        statuses = []
        if self._host.pipeline is not None:
            for camera in self._cameras:
                report = camera.report()
                title = f"{name}: {camera.name or 'image'}"
                status = camera_status(title, runtime, report, now.thresholds, camera.paused)
                statuses.append(status)
        title = f"{name}: model"
        statuses.append(model_status(title, self._host, now.model, now.workers, now.watchdog))
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=statuses))


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    start(args)
    try:
        node = ClassifierNode()
    except ParameterError:  # the node has told the log
        sys.exit(1)
    run(node, lambda: node.failed)
    if node.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
