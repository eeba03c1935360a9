# SPDX-License-Identifier: Apache-2.0
"""Lifecycle transitions that block nothing else.

A transition takes as long as a model's download. rclpy runs it in the node's executor, which then
serves nothing else; awaiting it there would keep a core busy. So one thread takes the requests, and
each is answered from its own thread, whatever executor the node is added to: parameters, `get_state`
and timers keep working. rcl's state machine refuses a transition during another.
"""

from __future__ import annotations

import threading
from typing import Any

from rclpy.lifecycle import LifecycleNode

from repghost_ros.ros.compat import WaitSet, give_back, serve_transitions_aside, take_request
from repghost_ros.ros.waiting import WaitingThread

_PERIOD = 0.5  # seconds until a shutdown of ROS is noticed, at most


class Transitions:
    """Serves a node's `~/change_state` until closed.

    Args:
        node: the node whose transitions are requested.

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
