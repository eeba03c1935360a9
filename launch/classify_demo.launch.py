# SPDX-License-Identifier: Apache-2.0
"""The demo with a visualiser: `ros2 launch repghost_ros classify_demo.launch.py viewer:=foxglove`.

A synthetic camera shows road signs and the node classifies them. Foxglove shows picture, overlay,
classes over time and diagnostics once config/layouts/foxglove.json is imported in its Layouts menu.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription
from repghost_ros.ros.launching import refuse_unknown

VIEWERS = {
    "foxglove": ("foxglove_bridge", "foxglove_bridge", []),
    "rviz": (
        "rviz2",
        "rviz2",
        [
            "-d",
            PathJoinSubstitution([FindPackageShare("repghost_ros"), "config/layouts/demo.rviz"]),
        ],
    ),
    "rqt": ("rqt_image_view", "rqt_image_view", ["/repghost/overlay"]),
}


def check(context: LaunchContext) -> None:
    """Refuse what was misspelt; the node's own arguments are passed on."""
    refuse_unknown(__file__, context.argv, own=["viewer"])


def generate_launch_description() -> LaunchDescription:
    """Camera, node and visualiser."""
    classify = PathJoinSubstitution(
        [FindPackageShare("repghost_ros"), "launch", "classify.launch.py"]
    )
    return LaunchDescription(
        [
            OpaqueFunction(function=check),
            DeclareLaunchArgument(
                "viewer",
                default_value="rqt",
                choices=[*VIEWERS, "none"],
                description="foxglove (foxglove_bridge, for the app), rviz, rqt (picture) or none.",
            ),
            DeclareLaunchArgument("model", default_value="demo", description="RepGhost size."),
            Node(package="repghost_ros", executable="camera", output="screen"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(classify),
                launch_arguments={"model": LaunchConfiguration("model")}.items(),
            ),
            *(
                Node(
                    package=package,
                    executable=executable,
                    arguments=arguments,
                    condition=IfCondition(
                        PythonExpression(["'", LaunchConfiguration("viewer"), f"' == '{viewer}'"])
                    ),
                )
                for viewer, (package, executable, arguments) in VIEWERS.items()
            ),
        ]
    )
