# SPDX-License-Identifier: Apache-2.0
"""Overrides and replacements for parts of rclpy, each with the versions it is for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy import lifecycle
from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions

from repghost_ros.errors import ParameterError


class PassedOver(CallbackGroup):
    """A callback group that executors skip: its owner serves its entities."""

    def can_execute(self, entity: Any) -> bool:
        """Never, by an executor."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never, by an executor."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """There is nothing to undo."""


def subscribe_aside(node: Node, message_type: Any, topic: str, qos: Any) -> Any:
    """A subscription of the node, visible as such in the graph, that no executor serves.

    An `rcl.Receiver` takes its messages. Its events, such as incompatible QoS, stay with the node.
    """
    subscription: Any = node.create_subscription(
        message_type,
        topic,
        _nothing,
        qos,
        callback_group=PassedOver(),
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        raw=True,
    )
    # Jazzy's and Kilted's EventsExecutor serves everything the node lists, whatever its callback group.
    node._subscriptions.remove(subscription)
    for handler in subscription.event_handlers:
        handler.callback_group = node.default_callback_group
        node.default_callback_group.add_entity(handler)
    return subscription


def unsubscribe(node: Node, subscription: Any) -> None:
    """Destroy what `subscribe_aside` made."""
    node._subscriptions.append(subscription)
    node.destroy_subscription(subscription)


def _nothing(message: Any) -> None:
    """No executor calls this."""


def serve_transitions_aside(node: lifecycle.LifecycleNode) -> Any:
    """The node's service change_state, which no executor serves from now on; see `take_request`."""
    service: Any = node._service_change_state
    node._services.remove(service)
    service.callback_group = PassedOver()
    return service


def give_back(node: Node, service: Any) -> None:
    """Let the node destroy what `serve_transitions_aside` took."""
    node._services.append(service)


class WaitSet:
    """Waits for services without an executor.

    rclpy's own wait set and how its executors use it are the same from Humble to Kilted.

    Args:
        context: of the node.

    """

    def __init__(self, context: Context) -> None:
        self._context: Any = context
        self._guard = GuardCondition(None, None, context)
        self._size = -1
        self._set: Any = None

    def wake(self) -> None:
        """Make `wait` return at once, from any thread."""
        self._guard.trigger()

    def wait(self, services: Sequence[Any], seconds: float) -> list[Any]:
        """The services that have a request, once there is one or the time is over."""
        if len(services) != self._size:
            self._size = len(services)
            self._set = _rclpy.WaitSet(0, 1, 0, 0, self._size, 0, self._context.handle)
        with ExitStack() as used:
            used.enter_context(self._context.handle)
            used.enter_context(self._guard.handle)
            self._set.clear_entities()
            for service in services:
                used.enter_context(service.handle)
                self._set.add_service(service.handle)
            self._set.add_guard_condition(self._guard.handle)
            self._set.wait(int(seconds * 1e9))
            ready = self._set.get_ready_entities("service")
        return [each for each in services if each.handle.pointer in ready]

    def close(self) -> None:
        """Release its middleware resources."""
        self._set = None
        self._guard.destroy()


def take_request(service: Any) -> tuple[Any, Any] | None:
    """The next request of a service and the header for `send_response`; None if there is none."""
    with service.handle:
        request, header = service.handle.service_take_request(service.srv_type.Request)
    return None if header is None else (request, header)


class LifecycleNode(lifecycle.LifecycleNode):
    """rclpy's lifecycle node without the faults below."""

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> Any:  # noqa: N802
        """Change the state; Humble to Kilted: rclpy tells the log of no transition."""
        before = self._state_machine.current_state[1]
        result = super()._LifecycleNodeMixin__change_state(transition_id)  # type: ignore[misc]
        told = f"{before} -> {self._state_machine.current_state[1]}"
        if result == lifecycle.TransitionCallbackReturn.ERROR:
            self.get_logger().error(f"{told}: the transition broke off")
        elif result == lifecycle.TransitionCallbackReturn.SUCCESS:
            self.get_logger().info(told)
        return result

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """Answer a change_state request; from Humble to Kilted, rclpy raises at an impossible one."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:
            self.get_logger().error(f"the transition is refused: {error}")
            response.success = False
            return response

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set them all or none, then apply them.

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
        """Set each by itself, in order."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def restore_parameters(self, parameter_list: list[Parameter]) -> None:
        """Restore parameters that `apply_parameters` could not apply, without applying them."""
        super().set_parameters_atomically(parameter_list)

    def coerce_parameters(self, parameter_list: list[Parameter]) -> list[Parameter]:
        """The values in the parameters' own types: rclpy refuses 10 for 10.0.

        Raises:
            ParameterError: a value cannot be converted.

        """
        return parameter_list

    def apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Act on parameters that were set and that every callback accepted."""
        return SetParametersResult(successful=True)
