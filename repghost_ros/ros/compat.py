# SPDX-License-Identifier: Apache-2.0
"""What overrides or stands in for parts of rclpy, each with the versions that it is for."""

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

from repghost_ros.errors import ParameterError


class PassedOver(CallbackGroup):
    """A callback group that executors pass over: who owns it serves its entities."""

    def can_execute(self, entity: Any) -> bool:
        """Never, by an executor."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never, by an executor."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


def subscribe_aside(node: Node, message_type: Any, topic: str, qos: Any) -> Any:
    """A subscription of the node, seen in the graph as such, that no executor serves.

    Its messages are taken by `take_message`. Events, such as of incompatible QoS, are the node's.
    """
    subscription: Any = node.create_subscription(
        message_type, topic, _nothing, qos, callback_group=PassedOver(), raw=True
    )
    # Jazzy's and Kilted's EventsExecutor serves all that the node lists, whatever its callback group.
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


class WaitSet:
    """Waits for subscriptions without an executor, which would cost more than the message.

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
        """Let `wait` return at once, from any thread."""
        self._guard.trigger()

    def wait(self, subscriptions: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the subscriptions that have messages, once one has or the time is over."""
        if len(subscriptions) != self._size:
            self._size = len(subscriptions)
            self._set = _rclpy.WaitSet(self._size, 1, 0, 0, 0, 0, self._context.handle)
        with ExitStack() as used:
            used.enter_context(self._context.handle)
            used.enter_context(self._guard.handle)
            self._set.clear_entities()
            for subscription in subscriptions:
                used.enter_context(subscription.handle)
                self._set.add_subscription(subscription.handle)
            self._set.add_guard_condition(self._guard.handle)
            self._set.wait(int(seconds * 1e9))
            ready = self._set.get_ready_entities("subscription")
        return [each for each in subscriptions if each.handle.pointer in ready]

    def close(self) -> None:
        """Give back what it has of the middleware."""
        self._set = None
        self._guard.destroy()


def take(subscription: Any) -> bytes | None:
    """The next message of a subscription as it was sent, None where there is none."""
    with subscription.handle:
        taken = subscription.handle.take_message(subscription.msg_type, True)
    return None if taken is None else taken[0]


class LifecycleNode(lifecycle.LifecycleNode):
    """rclpy's lifecycle node without the faults below."""

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """Answer a change_state request; Humble to Kilted: rclpy raises at an impossible one."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:
            self.get_logger().error(f"the transition is refused: {error}")
            response.success = False
            return response

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set them all or none, then apply them.

        Humble has no callback for what was set (Iron's add_post_set_parameters_callback), and none of
        the versions lets one refuse. Parameter services and `set_parameters` both end up here.
        """
        try:
            parameter_list = self.coerce_parameters(parameter_list)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        result = super().set_parameters_atomically(parameter_list)
        return self.apply_parameters(parameter_list) if result.successful else result

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set one after the other, each by itself."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def restore_parameters(self, parameter_list: list[Parameter]) -> None:
        """Set what `apply_parameters` could not apply back, without applying it."""
        super().set_parameters_atomically(parameter_list)

    def coerce_parameters(self, parameter_list: list[Parameter]) -> list[Parameter]:
        """What was set, in the types that the parameters have: rclpy refuses 10 for 10.0.

        Raises:
            ParameterError: a value cannot be one of that type.

        """
        return parameter_list

    def apply_parameters(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Act on parameters that were set; every callback has agreed to them."""
        return SetParametersResult(successful=True)
