# SPDX-License-Identifier: Apache-2.0
"""Entities of a node: QoS from parameters, and service without an executor by rclpy's private parts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rclpy import lifecycle
from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

QOS_OVERRIDES = QoSOverridingOptions(
    policy_kinds=(
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
"""The policies that `qos_overrides` sets: rclpy's default, and durability for latched images."""


class PassedOver(CallbackGroup):
    """A callback group that executors skip: its owner serves its entities."""

    def can_execute(self, entity: Any) -> bool:
        """Return False: no executor serves its entities."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Return False: no executor serves its entities."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Do nothing: nothing has begun."""


def subscribe_aside(node: Node, message_type: Any, topic: str, qos: Any) -> Any:
    """Subscribe for a node, visible in the graph as such, without an executor serving it.

    An `rcl.MessageTaker` takes its messages. Its events, such as incompatible QoS, stay with the node.
    """
    subscription: Any = node.create_subscription(
        message_type,
        topic,
        _nothing,
        qos,
        callback_group=PassedOver(),
        qos_overriding_options=QOS_OVERRIDES,
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
    """Do nothing: no executor calls this."""


def serve_transitions_aside(node: lifecycle.LifecycleNode) -> Any:
    """Take the service change_state from the executors and return it; see `take_request`."""
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
        """Return the services that have a request, once there is one or the time is over."""
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
        return [service for service in services if service.handle.pointer in ready]

    def close(self) -> None:
        """Release its middleware resources."""
        self._set = None
        self._guard.destroy()


def take_request(service: Any) -> tuple[Any, Any] | None:
    """Return a service's next request and the header for `send_response`; None if there is none."""
    with service.handle:
        request, header = service.handle.service_take_request(service.srv_type.Request)
    return None if header is None else (request, header)
