# SPDX-License-Identifier: Apache-2.0
"""Two cameras that share one model: ros2 launch examples/two_cameras.launch.py.

Images come on front/image and rear/image, answers on /repghost/front/classification and
/repghost/rear/classification.
"""

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Start one classifier for both cameras."""
    launch_file = PathJoinSubstitution(
        [FindPackageShare("repghost_ros"), "launch", "classify.launch.py"]
    )
    arguments = {"model": "demo", "cameras": "front, rear"}
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(launch_file), launch_arguments=arguments.items()
            )
        ]
    )
