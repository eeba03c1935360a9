# SPDX-License-Identifier: Apache-2.0
"""The base of a managed node: what holds for every transition and parameter, whatever the node does."""

from __future__ import annotations

import logging
import threading
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy import lifecycle
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from repghost_ros.errors import DependencyError, ParameterError
from repghost_ros.ros.bond import Bond
from repghost_ros.ros.compat import WaitSet, give_back, serve_transitions_aside, take_request
from repghost_ros.ros.process import interrupted, wait_for_acknowledgement
from repghost_ros.ros.threads import WaitingThread

_LIBRARY = logging.getLogger("repghost_ros")
_PERIOD = 2.0  # seconds until a shutdown of ROS is noticed, at most


class LifecycleNode(lifecycle.LifecycleNode):
    """rclpy's lifecycle node with the conventions of this package.

    - A subclass overrides `configure`, `activate`, `deactivate` and `cleanup`. If one of the first two
      raises, what it began is undone, the transition fails, and the log says why.
    - Transitions that are requested by service block neither the executor nor each other's answers.
    - The last messages are acknowledged, or half a second passes, before publishers are destroyed.
    - While active, the node can have a bond with a lifecycle manager.
    - Parameters are coerced to their types, set all or none, and then applied.
    - The library's log goes to /rosout.

    A subclass's constructor ends with `serve_transitions()`.

    Args:
        node_name: name of the node.
        kwargs: passed on to rclpy's node.

    """

    def __init__(self, node_name: str, **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        self._ending = threading.Event()
        self._destroying = threading.Lock()
        self._destroyed = False
        self._transitions: _Transitions | None = None
        self._bond: Bond | None = None
        self._library_log = ToRosout(self)

    def serve_transitions(self) -> None:
        """Answer requests for transitions from now on."""
        self._transitions = _Transitions(self)

    @property
    def is_ending(self) -> bool:
        """True if the node is being destroyed or the process has been interrupted."""
        return self._ending.is_set() or interrupted()

    @property
    def is_unconfigured(self) -> bool:
        """True if the node waits to be configured."""
        return bool(self._state_machine.current_state[1] == "unconfigured")

    def pause(self, seconds: float) -> None:
        """Wait for some time, or until the node is being destroyed."""
        self._ending.wait(seconds)

    def end(self) -> None:
        """Make `is_ending` true, so that whatever takes long is broken off."""
        self._ending.set()

    def destroy_node(self) -> None:
        """Deactivate, clean up and leave the graph; a second call does nothing."""
        self.end()
        with self._destroying:
            if self._destroyed:
                return
            self._destroyed = True
        if self._transitions is not None:  # else the constructor failed
            self._transitions.close()
            self._deactivate()
            self._cleanup()
        self._library_log.close()
        super().destroy_node()
        # rclpy leaves it to the garbage collector, and until then the node stays in the graph.
        del self._state_machine

    # --- transitions -----------------------------------------------------------------------------

    def configure(self) -> None:
        """Prepare to be activated."""

    def activate(self) -> None:
        """Begin to work; the lifecycle publishers are activated already."""

    def deactivate(self) -> None:
        """Stop working; also called if the node is not active."""

    def cleanup(self) -> None:
        """Undo `configure`; also called if the node is not configured."""

    def report_failure(self, error: Exception) -> None:
        """Log why a transition failed."""
        self.get_logger().error(str(error))

    def form_bond(self) -> None:
        """Let a lifecycle manager see that the node is alive, until it is deactivated."""
        try:
            self._bond = Bond(self)
        except DependencyError as error:
            self.get_logger().info(f"no bond with a lifecycle manager: {error}")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Call `configure`; if it fails, `cleanup`."""
        try:
            self.configure()
        except Exception as error:  # rclpy would not log it
            self.cleanup()
            return self._fail(error)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate the publishers and call `activate`; if it fails, deactivate again."""
        try:
            super().on_activate(state)
            self.activate()
        except Exception as error:  # rclpy would not log it
            self.on_deactivate(state)
            return self._fail(error)
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Call `deactivate` and deactivate the publishers."""
        self._deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Wait until what was published is acknowledged, and call `cleanup`."""
        self._cleanup()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Call `deactivate` and `cleanup`, from any state."""
        self._deactivate()
        self._cleanup()
        return super().on_shutdown(state)

    def _deactivate(self) -> None:
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.close()
        self.deactivate()

    def _cleanup(self) -> None:
        wait_for_acknowledgement(*self.publishers)
        self.cleanup()

    def _fail(self, error: Exception) -> TransitionCallbackReturn:
        self.report_failure(error)
        return TransitionCallbackReturn.FAILURE

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> Any:  # noqa: N802
        """Change the state and log it: rclpy, from Humble to Kilted, logs no transition."""
        before = self._state_machine.current_state[1]
        result = super()._LifecycleNodeMixin__change_state(transition_id)  # type: ignore[misc]
        change = f"{before} -> {self._state_machine.current_state[1]}"
        if result == TransitionCallbackReturn.ERROR:
            self.get_logger().error(f"{change}: the transition broke off")
        elif result == TransitionCallbackReturn.SUCCESS:
            self.get_logger().info(change)
        return result

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """Answer a request; rclpy, from Humble to Kilted, raises at an impossible transition."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:
            self.get_logger().error(f"the transition is refused: {error}")
            response.success = False
            return response

    # --- parameters ------------------------------------------------------------------------------

    def coerce_parameters(self, parameter_list: list[Parameter]) -> list[Parameter]:
        """Return the values in the parameters' own types: rclpy refuses 10 for 10.0.

        Raises:
            ParameterError: a value cannot be converted.

        """
        return parameter_list

    def apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Act on parameters that were set and that every callback accepted."""
        return SetParametersResult(successful=True)

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set all of them or none, then apply them.

        Humble lacks add_post_set_parameters_callback (Iron), and that callback cannot refuse.
        Parameter services and `set_parameters` both end up here.
        """
        try:
            parameter_list = self.coerce_parameters(parameter_list)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        result = super().set_parameters_atomically(parameter_list)
        return self.apply_parameters(parameter_list) if result.successful else result

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set them one by one, in order."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def restore_parameters(self, parameter_list: list[Parameter]) -> None:
        """Set parameters back without applying them, if `apply_parameters` could not apply new ones."""
        super().set_parameters_atomically(parameter_list)


class _Transitions:
    """Serves a node's `~/change_state` until closed.

    A transition takes as long as a model's download. rclpy runs it in the node's executor, which then
    serves nothing else; awaiting it there would keep a core busy. So one thread takes the requests, and
    another for each request runs the transition and answers, whatever executor the node is added to.
    rcl's state machine refuses a transition during another.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._service = serve_transitions_aside(node)
        self._answering: list[threading.Thread] = []
        self._wait_set = WaitSet(node.context)
        self._thread = WaitingThread(node.context, self._wait_set, "transitions", self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for service in self._wait_set.wait([self._service], _PERIOD):
            taken = take_request(service)
            if taken is not None:
                self._begin(*taken)

    def _begin(self, request: Any, header: Any) -> None:
        self._answering = [thread for thread in self._answering if thread.is_alive()]
        answer = threading.Thread(
            target=self._answer, args=(request, header), name="transition", daemon=True
        )
        self._answering.append(answer)
        answer.start()

    def _answer(self, request: Any, header: Any) -> None:
        response = self._service.callback(request, self._service.srv_type.Response())
        try:
            self._service.send_response(response, header)
        except Exception:
            if self._node.context.ok():
                raise

    def close(self) -> None:
        """Take no more requests; returns once those already taken are answered."""
        self._thread.close()
        for thread in self._answering:
            thread.join()
        give_back(self._node, self._service)


class ToRosout(logging.Handler):
    """Forwards the library's Python `logging` to a node's logger until closed."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._logger = node.get_logger()
        _LIBRARY.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; one call per level, because rclpy requires distinct call sites."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        else:
            self._logger.info(message)

    def close(self) -> None:
        """Stop forwarding."""
        _LIBRARY.removeHandler(self)
        super().close()
