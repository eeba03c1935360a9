"""Replay a bag: `ros2 launch repghost_ros replay.launch.py bag:=drive out:=answers`.

Needs `ros2 bag` (apt install ros-$ROS_DISTRO-rosbag2); `repghost replay` does without ROS.
"""

import json
import tempfile

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

# Passed on to classify.launch.py, which describes them.
CLASSIFY = ("model", "backend", "image_transport", "workers", "image", "log_level")
NODE = "/repghost"
SETTLE = 2.0  # seconds: for matching before the first frame, for answers after the last


def play(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The player, and the end once it has ended.

    It would offer the recorded QoS, for cameras often best effort: a reliable node would get nothing.
    """
    image = "/" + LaunchConfiguration("image").perform(context).lstrip("/")
    reliable = {"reliability": "reliable", "history": "keep_last", "depth": 100}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as overrides:
        json.dump({image: reliable, f"{image}/compressed": reliable}, overrides)  # JSON is YAML
    player = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", LaunchConfiguration("bag"), "--clock"),
            *("--rate", LaunchConfiguration("rate"), "--delay", str(SETTLE)),
            # Not all: the bag may hold classifications of its own.
            *("--topics", image, f"{image}/compressed"),
            *("--qos-profile-overrides-path", overrides.name),
        ],
        output="screen",
    )
    end = TimerAction(period=SETTLE, actions=[Shutdown(reason="played")])
    return [RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end])), player]


def generate_launch_description() -> LaunchDescription:
    """The node; once it is ready the bag and a recorder; the end once the bag is played."""
    share = FindPackageShare("repghost_ros")
    classifier = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([share, "launch", "classify.launch.py"])
        ),
        launch_arguments={
            **{name: LaunchConfiguration(name) for name in CLASSIFY},
            "params_file": LaunchConfiguration("params_file"),
        }.items(),
    )
    # Latched, and published when the model is loaded: the node is ready then.
    ready = ExecuteProcess(
        cmd=[
            *("ros2", "topic", "echo", "--once", "--qos-durability", "transient_local"),
            *("--qos-reliability", "reliable", f"{NODE}/vision_info", "vision_msgs/msg/VisionInfo"),
        ],
        log_cmd=True,
    )
    record = ExecuteProcess(
        cmd=["ros2", "bag", "record", "-o", LaunchConfiguration("out"), f"{NODE}/classification"],
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="The bag to play."),
            DeclareLaunchArgument("out", description="Folder of the bag to record answers into."),
            DeclareLaunchArgument("rate", default_value="1.0", description="Times as fast."),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "replay.yaml"]),
                description="YAML file with the node's parameters.",
            ),
            *(
                DeclareLaunchArgument(name, default_value=value, description=description)
                for name, value, description in (
                    ("model", "", "RepGhost size, or demo."),
                    ("backend", "", "What runs the model: bpu, onnx or auto."),
                    ("image_transport", "", "raw or compressed."),
                    ("workers", "", "Frames converted and inferred at the same time."),
                    ("image", "image", "Topic of the camera images in the bag."),
                    ("log_level", "info", "debug, info, warn, error or fatal."),
                )
            ),
            classifier,
            record,
            ready,
            RegisterEventHandler(
                OnProcessExit(target_action=ready, on_exit=[OpaqueFunction(function=play)])
            ),
        ]
    )
