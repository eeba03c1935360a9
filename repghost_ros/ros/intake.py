"""Images from the ROS graph, on a thread and an executor of their own.

The subscription lives in a node of its own, as tf2's listener does. So parameter requests, model
loading and lifecycle transitions never hold a frame up, the executor a stack composes the classifier
into does not matter, and on Humble, whose executors walk through every entity of their nodes for each
message, there is just this one to walk through.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from repghost_ros.ros.executors import fastest_executor, spin
from repghost_ros.ros.topics import Source, complaint, published

_PERIOD = 0.5  # seconds between two looks at what is published
_PATIENCE = 2.0  # seconds without a frame until that is looked at


class Intake:
    """Subscribes on behalf of a node and calls back on a thread of its own until closed.

    Args:
        node: whose name, namespace and context the subscriptions take, and whose logger is told.
        qos: quality of service of the subscriptions.

    """

    def __init__(self, node: Node, qos: QoSProfile) -> None:
        # The topics are resolved already: global remap rules must not apply a second time.
        self._node = Node(
            f"{node.get_name()}_intake",
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._qos = qos
        self._log = node.get_logger()
        self._executor = fastest_executor(node.context)
        self._executor.add_node(self._node)
        self._closing = False
        self._thread = threading.Thread(target=self._spin, name="intake", daemon=True)
        self._thread.start()

    def subscribe(self, candidates: list[Source], callback: Callable[[Any], None]) -> Subscription:
        """Call back with each message of whichever source is published; it must return quickly."""
        return Subscription(self._node, self._qos, candidates, callback, self._log)

    def _spin(self) -> None:
        spin(self._executor, self._node.context, lambda: self._closing)

    def close(self) -> None:
        """Take no further messages; returns once no callback runs."""
        self._closing = True
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()


class Subscription:
    """Follows what is published, and says where nothing can come.

    Args:
        node: subscribes; everything happens in its executor.
        qos: of the subscription.
        candidates: where messages may come from; the first until one of them is published.
        callback: called with each message.
        log: told when the source changes, and why none comes.

    """

    def __init__(
        self,
        node: Node,
        qos: QoSProfile,
        candidates: list[Source],
        callback: Callable[[Any], None],
        log: Any,
    ) -> None:
        self._node = node
        self._qos = qos
        self._candidates = candidates
        self._callback = callback
        self._log = log
        self._said = ""
        self._seen: Source | None = None
        self._last = time.monotonic()
        self.source = published(node, candidates) or candidates[0]
        self._subscription: Any = self._subscribe()
        # Steady time: the clock of a simulation may stand still.
        node.create_timer(_PERIOD, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _subscribe(self) -> Any:
        return self._node.create_subscription(
            self.source.message_type, self.source.topic, self._take, self._qos
        )

    def _take(self, message: Any) -> None:
        self._last = time.monotonic()
        self._callback(message)

    def _look(self) -> None:
        idle = time.monotonic() - self._last
        if idle < _PERIOD:
            self._said = ""
            return
        source = published(self._node, self._candidates)
        # Twice, for a publisher's topics are discovered one after the other.
        if source not in (None, self.source) and source == self._seen:
            assert source is not None
            self.source = source
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
                self._subscription = None
        elif self._subscription is None:
            # Not at once: DDS has one type a topic until the executor has let go of the old one.
            self._subscription = self._subscribe()
            self._log.info(f"subscribed to {self.source}, which is published")
        self._seen = source
        if idle >= _PATIENCE and source in (None, self.source):
            said = complaint(self._node, self.source, self._qos)
            if said and said != self._said:
                self._log.warning(f"no image for {idle:.0f} s: {said}")
            self._said = said
