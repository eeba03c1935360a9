# SPDX-License-Identifier: Apache-2.0
"""The demo with a visualizer: `ros2 launch repghost_ros classify_demo.launch.py viewer:=foxglove`.

A synthetic camera shows road signs and the node classifies them. Foxglove shows picture, overlay,
classes over time and diagnostics once config/layouts/foxglove.json is imported in its Layouts menu.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from repghost_ros.ros.launching import apt, refuse_unknown, require

SHARE = FindPackageShare("repghost_ros")
# Package, which names its program, and arguments.
VIEWERS = {
    "foxglove": ("foxglove_bridge", []),
    "rviz": ("rviz2", ["-d", PathJoinSubstitution([SHARE, "config/layouts/demo.rviz"])]),
    "rqt": ("rqt_image_view", ["/repghost/overlay"]),
}


def parts(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return camera, node and viewer; the node's own arguments are passed on."""
    refuse_unknown(__file__, context.argv, own=["viewer"])
    viewer = LaunchConfiguration("viewer").perform(context)
    viewers = []
    if viewer != "none":
        package, arguments = VIEWERS[viewer]
        require([package], f"{apt([package])}, or set viewer:=none")
        viewers = [Node(package=package, executable=package, arguments=arguments)]
    classify = PathJoinSubstitution([SHARE, "launch", "classify.launch.py"])
    return [
        Node(package="repghost_ros", executable="camera", output="screen"),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(classify),
            launch_arguments={"model": LaunchConfiguration("model")}.items(),
        ),
        *viewers,
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the rest depends on them."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "viewer",
                default_value="rqt",
                choices=[*VIEWERS, "none"],
                description="foxglove (foxglove_bridge, for the app), rviz, rqt (picture) or none.",
            ),
            DeclareLaunchArgument("model", default_value="demo", description="Name of a model."),
            OpaqueFunction(function=parts),
        ]
    )
