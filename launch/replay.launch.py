# SPDX-License-Identifier: Apache-2.0
"""Replay a bag: `ros2 launch repghost_ros replay.launch.py bag:=drive out:=answers`.

Needs `ros2 bag` (apt install ros-$ROS_DISTRO-rosbag2); `repghost replay` does without ROS.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.ros_adapters import get_ros_node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from repghost_ros.ros.launching import apt, refuse_unknown, require
from repghost_ros.ros.messages import Classification
from repghost_ros.sources.ros2 import METADATA, read_metadata

# Passed on to classify.launch.py, which describes them.
PASSED_ON = ("model", "backend", "image_transport", "workers", "namespace", "log_level")
PACKAGES = ("ros2bag", "ros2topic")
MATCH = 5.0  # seconds before the first frame: Fast DDS repeats its announcements every 3 s
SETTLE = 2.0  # seconds of silence after the last answer
PATIENCE = 10.0  # seconds of silence while answers are missing
ACKNOWLEDGED_MS = 30_000  # at most, until the node has all images: the player would not wait for it


def announced(bag: str, topics: Sequence[str]) -> int:
    """Return how many images a bag's metadata announces; 0 where a bag has none, as a single file.

    Of `topics`, image and compressed images, the node serves one: that with fewer images counts.
    """
    if not (Path(bag) / METADATA).is_file():
        return 0
    _, counts = read_metadata(Path(bag))
    return min((counts[topic] for topic in topics if counts[topic]), default=0)


class Replay:
    """Starts one process after the other; if one ends at any other time, the launch fails."""

    def __init__(self) -> None:
        self._player: ExecuteProcess | None = None
        self._answers = self._announced = 0
        self._latest = 0.0
        self._node = self._image = ""

    def start(self, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """Start the node and a recorder of its answers, and wait until the node is ready."""
        refuse_unknown(__file__, context.argv, own=["bag", "out", "rate"])
        require(PACKAGES, f"{apt(['rosbag2', 'ros2topic'])}; `repghost replay` does without them")
        namespace = LaunchConfiguration("namespace").perform(context).strip("/")
        self._node = f"/{namespace}/repghost" if namespace else "/repghost"
        self._image = "/" + LaunchConfiguration("image").perform(context).lstrip("/")
        # Started now, because it must find the node before the first frame is played.
        get_ros_node(context).create_subscription(
            Classification, f"{self._node}/classification", self._on_answer, 1000
        )
        record = ExecuteProcess(
            # As a regular expression: Jazzy deprecates names without --topics, Humble has no --topics.
            cmd=[
                *("ros2", "bag", "record", "-o", LaunchConfiguration("out")),
                *("--regex", f"^{self._node}/classification$"),
            ],
            output="screen",
        )
        # Latched and published once the model is loaded, so the node is ready.
        ready = ExecuteProcess(
            cmd=[
                *("ros2", "topic", "echo", "--once", "--qos-durability", "transient_local"),
                *("--qos-reliability", "reliable"),
                *(f"{self._node}/vision_info", "vision_msgs/msg/VisionInfo"),
            ],
            log_cmd=True,
        )
        classify = PathJoinSubstitution(
            [FindPackageShare("repghost_ros"), "launch", "classify.launch.py"]
        )
        classifier = IncludeLaunchDescription(
            PythonLaunchDescriptionSource(classify),
            launch_arguments={
                **{name: LaunchConfiguration(name) for name in PASSED_ON},
                "params_file": LaunchConfiguration("params_file"),
                "image": self._image,
                "required": "true",
            }.items(),
        )
        return [
            RegisterEventHandler(OnProcessExit(target_action=record, on_exit=self._fail)),
            RegisterEventHandler(OnProcessExit(target_action=ready, on_exit=self._on_ready)),
            classifier,
            record,
            ready,
        ]

    def _fail(self, event: ProcessExited, context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise RuntimeError(
                f"{event.process_name} ended before the replay did (exit code {event.returncode})"
            )

    def _on_ready(
        self, event: ProcessExited, context: LaunchContext
    ) -> list[LaunchDescriptionEntity] | None:
        if event.returncode != 0:
            self._fail(event, context)
        return None if context.is_shutdown else self._play(context)

    def _on_played(
        self, event: ProcessExited, context: LaunchContext
    ) -> list[LaunchDescriptionEntity] | None:
        if event.returncode != 0:
            self._fail(event, context)
        self._latest = time.monotonic()
        return None if context.is_shutdown else self._end_when_silent(context)

    def _play(self, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        # It would offer the recorded QoS, for cameras often best effort: a reliable node would get
        # nothing.
        image = self._image
        bag = LaunchConfiguration("bag").perform(context)
        self._announced = announced(bag, (image, f"{image}/compressed"))
        reliable = {"reliability": "reliable", "history": "keep_last", "depth": 100}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as overrides:
            json.dump({image: reliable, f"{image}/compressed": reliable}, overrides)  # JSON is YAML
        self._player = ExecuteProcess(
            cmd=[
                *("ros2", "bag", "play", bag, "--clock"),
                *("--rate", LaunchConfiguration("rate"), "--delay", str(MATCH)),
                *("--wait-for-all-acked", str(ACKNOWLEDGED_MS)),
                # Not all topics, because the bag may hold classifications itself.
                *("--topics", image, f"{image}/compressed"),
                *("--qos-profile-overrides-path", overrides.name),
            ],
            output="screen",
        )
        remove = OnShutdown(on_shutdown=lambda *_: Path(overrides.name).unlink(missing_ok=True))
        return [
            RegisterEventHandler(remove),
            RegisterEventHandler(
                OnProcessExit(target_action=self._player, on_exit=self._on_played)
            ),
            self._player,
        ]

    def _on_answer(self, _: Classification) -> None:
        self._answers += 1
        self._latest = time.monotonic()

    def _end_when_silent(self, _: LaunchContext) -> list[LaunchDescriptionEntity]:
        is_complete = bool(self._answers) and self._answers >= self._announced
        if time.monotonic() - self._latest > (SETTLE if is_complete else PATIENCE):
            if not self._answers:
                raise RuntimeError(
                    f"no frame was answered: is {self._image} in the bag? `ros2 bag info` lists its "
                    "topics"
                )
            if not is_complete:
                raise RuntimeError(
                    f"{self._answers} of {self._announced} images were answered: the node's log and "
                    "/diagnostics say which it refused or skipped"
                )
            return [Shutdown(reason="played")]
        again = OpaqueFunction(function=self._end_when_silent)
        return [TimerAction(period=SETTLE / 4, actions=[again])]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; `Replay` starts the processes."""
    share = FindPackageShare("repghost_ros")
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
                    ("model", "", "Name of a model, or demo."),
                    ("backend", "", "What runs the model: bpu, onnx or auto."),
                    ("image_transport", "", "auto, raw or compressed."),
                    ("workers", "", "Frames converted and inferred at the same time."),
                    ("namespace", "", "Namespace of the node and its answers."),
                    ("image", "image", "Topic of the camera images in the bag."),
                    ("log_level", "info", "debug, info, warn, error or fatal."),
                )
            ),
            OpaqueFunction(function=Replay().start),
        ]
    )
