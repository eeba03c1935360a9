# SPDX-License-Identifier: Apache-2.0
"""Classify a detector's boxes: `ros2 launch repghost_ros regions.launch.py detections:=/found`.

Takes the arguments of classify.launch.py; `detections` is the detector's topic.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription
from repghost_ros.ros.launching import refuse_unknown


def check(context: LaunchContext) -> None:
    """Refuse misspelt arguments."""
    refuse_unknown(__file__, context.argv)


def generate_launch_description() -> LaunchDescription:
    """Include classify.launch.py with a detector's topic."""
    share = FindPackageShare("repghost_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "detections",
                default_value="detections",
                description="Topic of the detector's boxes: vision_msgs/Detection2DArray or "
                "ai_msgs/PerceptionTargets.",
            ),
            OpaqueFunction(function=check),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "classify.launch.py"])
                ),
                launch_arguments={"detections": LaunchConfiguration("detections")}.items(),
            ),
        ]
    )
