# SPDX-License-Identifier: Apache-2.0
"""Receive images and boxes from the ROS graph on a dedicated thread.

The subscriptions are the node's own, in a callback group that executors skip: a thread waits for
them and takes every message, still serialized. So parameter requests, model loading and lifecycle
transitions never delay a frame, the executor that the node is composed into does not matter, and a
message costs no more than the middleware needs, on Humble as on newer distributions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from repghost_ros.engine.pipeline import Bell
from repghost_ros.ros.compat import subscribe_aside, unsubscribe
from repghost_ros.ros.rcl import MessageTaker, Taken
from repghost_ros.ros.threads import WaitingThread
from repghost_ros.ros.topics import Topic, complaint, published_among, silence

Take = Callable[[Any], None]
"""Called with a message, as its topic reads it."""
_PERIOD = 0.5  # seconds between checks of what is published
_PATIENCE = 2.0  # seconds without a frame until the cause is checked


class Intake:
    """Subscribes for a node and calls back on a thread of its own until closed.

    Args:
        node: the subscriber; its logger is used.
        bell: is rung after callbacks, once the thread no longer holds Python's lock.

    """

    def __init__(self, node: Node, bell: Bell) -> None:
        self._node = node
        self._bell = bell
        self._subscriptions: list[Subscription] = []
        self._receiver = MessageTaker(node.context)
        self._thread = WaitingThread(node.context, self._receiver, "intake", self._serve)
        self._thread.start()

    def subscribe(
        self, candidates: Sequence[Topic], qos: QoSProfile, callback: Take
    ) -> Subscription:
        """Call back with each message of whichever source is published; callbacks must be quick."""
        subscription = Subscription(self._node, qos, candidates, callback)
        # A new list, because the thread may be iterating over the old one.
        self._subscriptions = [*self._subscriptions, subscription]
        self._thread.wake()
        return subscription

    def pause(self, subscription: Subscription, *, paused: bool) -> None:
        """Unsubscribe, or subscribe again."""
        if subscription.paused != paused:
            subscription.paused = paused
            self._thread.wake()

    def _serve(self) -> None:
        """Pass messages on as they arrive, for a while, then look after the subscriptions."""
        followed = [
            subscription for subscription in self._subscriptions if subscription.handle is not None
        ]
        handles = [subscription.handle for subscription in followed]
        now = time.monotonic()
        until = now + _PERIOD
        while now < until and not self._thread.closing:
            received = self._receiver.receive(handles, until - now, self._bell)
            now = time.monotonic()
            if received is None:
                break
            number, message = received
            followed[number].pass_on(message, now)
        self._bell.ring()
        for subscription in self._subscriptions:
            subscription.look(now)

    def close(self) -> None:
        """Take no further messages; returns once no callback runs."""
        self._thread.close()
        for subscription in self._subscriptions:
            subscription.close()


class Subscription:
    """Follows what is published, and warns when no message can arrive.

    Args:
        node: subscribes.
        qos: of the subscription; overrides in parameters of the node are written into it.
        candidates: possible sources; the first one until any of them is published.
        callback: called with each message.

    """

    def __init__(
        self,
        node: Node,
        qos: QoSProfile,
        candidates: Sequence[Topic],
        callback: Take,
    ) -> None:
        self._node = node
        self.qos = qos
        self._candidates = candidates
        self._callback = callback
        self.paused = False
        """True while nobody wants the images; there is no subscription then."""
        self._said = ""
        self._has_received = False
        self._seen: Topic | None = None
        self._last = self._looked = time.monotonic()
        self.source = published_among(node, candidates) or candidates[0]
        self.handle: Any = None
        """rclpy's subscription; None for a moment between two sources."""
        self._subscribe()

    def _subscribe(self) -> None:
        source = self.source
        self.handle = subscribe_aside(self._node, source.message_type, source.topic, self.qos)

    def pass_on(self, message: Taken, now: float) -> None:
        """Call back with a message that has arrived."""
        self._last = now
        self._has_received = True
        self._callback(self.source.read(message))

    def close(self) -> None:
        """Unsubscribe."""
        if self.handle is not None:
            unsubscribe(self._node, self.handle)
            self.handle = None

    def look(self, now: float) -> None:
        """Periodically: follow what is published, or warn why nothing arrives."""
        if self.paused:
            self.close()
            self._seen, self._last = None, now
            return
        if self.handle is None and self._seen is None:  # it was paused
            self._subscribe()
        if now - self._looked < _PERIOD:
            return
        self._looked = now
        idle = now - self._last
        if idle < _PERIOD:
            self._said = ""
            return
        source = published_among(self._node, self._candidates)
        # Twice, because a publisher's topics are discovered one after another.
        if source not in (None, self.source) and source == self._seen:
            assert source is not None
            self.source = source
            self.close()
        elif self.handle is None:
            # Not at once: DDS allows one type per topic until the old subscription is gone.
            self._subscribe()
            self._node.get_logger().info(f"subscribed to {self.source}, which is published")
        self._seen = source
        if idle >= _PATIENCE and source in (None, self.source):
            said = complaint(self._node, self.source, self.qos)
            if not said and not self._has_received:  # a slow or paused camera is not complained of
                said = silence(self._node, self.source, self.qos)
            if said and said != self._said:
                self._node.get_logger().warning(f"no {self.source.noun} for {idle:.0f} s: {said}")
            self._said = said
