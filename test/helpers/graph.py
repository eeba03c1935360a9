# SPDX-License-Identifier: Apache-2.0
"""A robot's side of the graph for the tests: real DDS, the node under test in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from helpers.waiting import WAIT, wait_until
from repghost_ros.paths import share
from repghost_ros.ros import messages
from repghost_ros.sources.signs import render

DEMO = str(share() / "models" / "demo.onnx")
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
_KEPT = "stays as it is"  # what the node logs of a model that it could not open
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def image(pixels: np.ndarray, stamp: int, encoding: str = "bgr8") -> Image:
    """Make an Image of a uint8 (height, width, channels) picture, stamped with `stamp` seconds."""
    header = Header(frame_id="camera_optical_frame")
    header.stamp.sec = stamp
    return messages.image(header, pixels, encoding)


class Robot:
    """One test's own participant, with clients of the node `/repghost`."""

    def __init__(self, node_name: str = "repghost") -> None:
        self.name = node_name
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node("robot", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.classifications: list[Any] = []
        self.node.create_subscription(
            messages.Classification,
            f"/{node_name}/classification",
            self.classifications.append,
            RELIABLE,
        )
        self._publishers: dict[tuple[str, Any], Any] = {}
        self._clients: dict[str, Any] = {}
        self._settled: set[tuple[str, Any]] = set()
        self._thread = threading.Thread(target=self.executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self.context.try_shutdown()

    def publisher(
        self, topic: str = "image", message_type: Any = Image, qos: QoSProfile = RELIABLE
    ) -> Any:
        """Return a publisher that already has its subscriber; the same one for the same topic."""
        key = (topic, qos.reliability)
        publisher = self._publishers.get(key)
        if publisher is None:
            publisher = self.node.create_publisher(message_type, topic, qos)
            self._publishers[key] = publisher
        if not publisher.get_subscription_count():
            wait_until(publisher.get_subscription_count, f"a subscriber of {topic}")
        if key not in self._settled:
            # The other side matches a moment later, and DDS does not tell when.
            time.sleep(0.5)
            self._settled.add(key)
        return publisher

    def drop_publisher(self, topic: str, qos: QoSProfile = RELIABLE) -> None:
        """Destroy the publisher of a topic."""
        key = (topic, qos.reliability)
        self.node.destroy_publisher(self._publishers.pop(key))
        self._settled.discard(key)

    def forget_publishers(self) -> None:
        """Wait again for both sides to match: the node has unsubscribed."""
        self._settled.clear()

    def collect(self, message_type: Any, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        """Return the list to which this topic's messages will be appended."""
        received: list[Any] = []
        self.node.create_subscription(message_type, topic, received.append, qos)
        return received

    def answer(self, publisher: Any, message: Image | CompressedImage) -> Any:
        """Publish one image and wait for the classification that carries its header."""
        publisher.publish(message)
        return self.answer_to(message.header)

    def answer_to(self, header: Header) -> Any:
        def found() -> Any:
            return next((c for c in self.classifications if c.header == header), None)

        return wait_until(found, f"the answer to {header}")

    def call(self, service_type: Any, service: str, request: Any) -> Any:
        client = self._clients.get(service)
        if client is None:
            client = self.node.create_client(service_type, f"/{self.name}/{service}")
            assert client.wait_for_service(WAIT), f"no service {service}"
            time.sleep(0.5)  # the way back matches a moment later, and DDS does not tell when
            self._clients[service] = client
        future = client.call_async(request)
        wait_until(future.done, f"the response of {service}")
        return future.result()

    def state(self) -> str:
        label: str = self.call(GetState, "get_state", GetState.Request()).current_state.label
        return label

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        success: bool = self.call(ChangeState, "change_state", request).success
        return success

    def set_parameter(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, "set_parameters", request).results[0]

    def refusal(self, name: str, value: Any) -> str:
        """Return why a parameter is refused: at once, or in the log if its model takes long to open."""
        told = self.collect(Log, "/rosout", QoSProfile(depth=1000, reliability=LATCHED.reliability))
        result = self.set_parameter(name, value)
        if result.successful:
            assert "being opened" in result.reason
            wait_until(lambda: self.get_parameter(name) != value, f"the earlier {name}")
            wait_until(lambda: any(_KEPT in each.msg for each in told), "the reason")
        return str(result.reason) + "".join(each.msg for each in told)

    def get_parameter(self, name: str) -> Any:
        values = self.call(GetParameters, "get_parameters", GetParameters.Request(names=[name]))
        return rclpy.parameter.parameter_value_to_python(values.values[0])

    def describe_parameter(self, name: str) -> Any:
        request = DescribeParameters.Request(names=[name])
        return self.call(DescribeParameters, "describe_parameters", request).descriptors[0]


class RunningNode:
    """A node's process and what it has printed by now."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []

    def read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(self.process.stdout)

    def output(self) -> str:
        return "".join(self._lines)


_AS_ON_HUMBLE = """
import sys
sys.modules["rclpy.experimental"] = None
from repghost_ros.ros.node import main
main()
"""


@contextmanager
def running_node(
    *arguments: str,
    env: dict[str, str] | None = None,
    events_executor: bool = True,
    emulated: bool = False,
    **parameters: Any,
) -> Iterator[RunningNode]:
    """Run the classifier node in its own process, interrupted at the end.

    `arguments` follow --ros-args, such as remap rules; `parameters` go on top of the demo model;
    without `events_executor` it runs with the executor that Humble has; `emulated`, it finds a board
    on which the demo model gives its real answers.
    A node that does not end when interrupted, or that ends with an error, fails the test.
    """
    program = ["-m", "repghost_ros.ros.node"] if events_executor else ["-c", _AS_ON_HUMBLE]
    if emulated:
        program = ["-m", "emulator", "repghost_ros.ros.node"]
    command = [sys.executable, *program, "--ros-args", *arguments]
    for name, value in {"model": "demo", **parameters}.items():
        command += ["-p", f"{name}:={value}"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    node = RunningNode(process)
    reader = threading.Thread(target=node.read, daemon=True)
    reader.start()
    try:
        yield node
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(WAIT)
        reader.join(WAIT)
        assert code == 0, f"the node ended with {code}:\n{node.output()}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def sign(label: str, seed: int = 1, width: int = 320, height: int = 240) -> np.ndarray:
    """Render a BGR picture of a sign, uint8 (height, width, 3)."""
    return render(label, np.random.default_rng(seed), width, height)


def best(answer: Any) -> str:
    name: str = messages.results(answer)[0].class_id
    return name
