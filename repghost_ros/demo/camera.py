# SPDX-License-Identifier: Apache-2.0
"""A synthetic camera that shows the package's own road signs and publishes which one it shows."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from repghost_ros.engine.results import Result
from repghost_ros.ros import messages
from repghost_ros.ros.process import run, start
from repghost_ros.sources.signs import sequence


class SignCamera(Node):
    """Publishes `image` (bgr8) and, under the same header, `truth`: the sign that it shows."""

    def __init__(self) -> None:
        super().__init__("camera")

        def integer(name: str, default: int, low: int, high: int, text: str) -> int:
            bounds = [IntegerRange(from_value=low, to_value=high)]
            descriptor = ParameterDescriptor(description=text, read_only=True, integer_range=bounds)
            value: int = self.declare_parameter(name, default, descriptor).value
            return value

        width = integer("width", 640, 32, 4096, "Pixels across.")
        height = integer("height", 480, 32, 4096, "Pixels down.")
        seed = integer("seed", 1, 0, 2**31, "Which sequence of signs is shown.")
        bounds = [FloatingPointRange(from_value=0.1, to_value=1000.0)]
        fps: float = self.declare_parameter(
            "fps",
            30.0,
            ParameterDescriptor(
                description="Frames a second.", read_only=True, floating_point_range=bounds
            ),
        ).value
        self._scenes = sequence(seed, width, height, frames_per_scene=max(1, round(2 * fps)))
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._truths = self.create_publisher(messages.Classification, "truth", 10)
        self.create_timer(1 / fps, self._publish)

    def _publish(self) -> None:
        label, picture = next(self._scenes)
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id="camera_optical_frame")
        self._truths.publish(messages.classification(header, [Result(label, 1.0)]))
        self._images.publish(messages.image(header, picture, "bgr8"))


def main(args: list[str] | None = None) -> None:
    """Publish until interrupted."""
    start(args)
    run(SignCamera())


if __name__ == "__main__":
    main()
