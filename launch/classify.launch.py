"""Start the classifier: `ros2 launch repghost_ros classify.launch.py model:=150`."""

from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

# Each is empty unless given, so that it outranks params_file only where it is meant to.
PARAMETERS = {
    "model": (str, "RepGhost size (100, 111, 130, 150, 200), or demo: the built-in road signs"),
    "backend": (str, "What runs the model: bpu, onnx, or auto (the BPU where there is one)"),
    "image_transport": (str, "raw: image; compressed: <image>/compressed; auto: what is published"),
    "workers": (int, "Frames converted and inferred at the same time"),
}


def classifier(context: LaunchContext) -> list[Node]:
    """The node, with the parameters that were given as arguments."""
    given: dict[str, Any] = {}
    for name, (value_type, _) in PARAMETERS.items():
        value = LaunchConfiguration(name).perform(context)
        if value:
            given[name] = value_type(value)
    return [
        Node(
            package="repghost_ros",
            executable="classifier_node",
            name="repghost",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), given],
            remappings=[("image", LaunchConfiguration("image"))],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """One classifier node, remapped and configured by the launch arguments."""
    share = FindPackageShare("repghost_ros")
    arguments = [
        DeclareLaunchArgument(
            name, default_value="", description=f"{description}. Empty: as in params_file."
        )
        for name, (_, description) in PARAMETERS.items()
    ]
    return LaunchDescription(
        [
            *arguments,
            DeclareLaunchArgument(
                "image", default_value="image", description="Topic of the camera images."
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node and its topics."
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "classify.yaml"]),
                description="YAML file with all parameters.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                description="debug, info, warn, error or fatal.",
            ),
            OpaqueFunction(function=classifier),
        ]
    )
