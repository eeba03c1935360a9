# SPDX-License-Identifier: Apache-2.0
"""Start the classifier: `ros2 launch repghost_ros classify.launch.py model:=150`.

Every parameter of the node is an argument; `ros2 launch -s repghost_ros classify.launch.py` lists them.
"""

import sys
from typing import Any

import yaml
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from repghost_ros.ros.launching import ARGUMENTS, refuse_unknown
from repghost_ros.ros.parameters import DECLARATIONS


def given_parameters(context: LaunchContext) -> dict[str, Any]:
    """Return the node's parameters that were given as arguments, in their types."""
    given = {}
    for name, parameter in DECLARATIONS.items():
        text = LaunchConfiguration(name).perform(context)
        if not text:
            continue
        value = text if isinstance(parameter.default, str) else yaml.safe_load(text)
        if isinstance(parameter.default, tuple) and not isinstance(value, list):
            value = [each.strip() for each in text.split(",")]
        given[name] = float(value) if isinstance(parameter.default, float) else value
    return given


def classifier(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node; if its model is required, the launch ends when the node fails."""
    refuse_unknown(__file__, context.argv)

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    given = given_parameters(context)
    share = FindPackageShare("repghost_ros")
    default_file = PathJoinSubstitution([share, "config", "classify.yaml"])
    node = Node(
        package="repghost_ros",
        executable="classifier_node",
        name=argument("name"),
        namespace=argument("namespace"),
        parameters=[
            argument("params_file") or default_file,
            *([{"use_sim_time": True}] if yaml.safe_load(argument("use_sim_time")) else []),
            given,
        ],
        remappings=[("image", argument("image"))],
        ros_arguments=["--log-level", argument("log_level")],
        respawn=bool(yaml.safe_load(argument("respawn"))),
        respawn_delay=1.0,
        output="screen",
        emulate_tty=sys.stdout.isatty(),  # otherwise redirected logs would contain color codes
    )

    def on_exit(event: ProcessExited, context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}")

    if not given.get("required"):
        return [node]
    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit)), node]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments of one classifier node."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            *(
                DeclareLaunchArgument(
                    name,
                    default_value="",
                    description=f"{parameter.description} Empty: as in params_file.",
                )
                for name, parameter in DECLARATIONS.items()
            ),
            OpaqueFunction(function=classifier),
        ]
    )
