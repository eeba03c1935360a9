"""`python -m launch_it FILE NAME:=VALUE ...`: what `ros2 launch FILE` does, without ros2cli."""

from __future__ import annotations

import sys

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

from launch import LaunchDescription, LaunchService  # type: ignore[attr-defined]

if __name__ == "__main__":
    file, *arguments = sys.argv[1:]
    service = LaunchService(argv=arguments)
    included = IncludeLaunchDescription(
        AnyLaunchDescriptionSource(file),
        launch_arguments=[tuple(argument.split(":=", 1)) for argument in arguments],
    )
    service.include_launch_description(LaunchDescription([included]))
    sys.exit(service.run())
