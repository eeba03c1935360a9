# SPDX-License-Identifier: Apache-2.0
"""Your node and the classifier in one process: python examples/composed.py [--ros-args ...]."""

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from vision_msgs.msg import Classification

from repghost_ros.ros.node import ClassifierNode


class Driver(Node):
    """Stops at stop signs, or would."""

    def __init__(self) -> None:
        super().__init__("driver")
        self.create_subscription(Classification, "/repghost/classification", self.decide, 10)

    def decide(self, answer: Classification) -> None:
        """Act on an answer."""
        best = answer.results[0]
        if best.class_id == "stop" and best.score > 0.9:
            self.get_logger().info("stop")


def main() -> None:
    """Spin both until an interrupt."""
    rclpy.init()
    classifier = ClassifierNode(parameter_overrides=[Parameter("model", value="demo")])
    executor = SingleThreadedExecutor()
    executor.add_node(classifier)
    executor.add_node(Driver())
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        classifier.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
