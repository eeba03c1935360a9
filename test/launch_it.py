# SPDX-License-Identifier: Apache-2.0
"""`python -m launch_it [--seconds N] FILE NAME:=VALUE ...`: `ros2 launch FILE`, without ros2cli."""

from __future__ import annotations

import sys

from launch.actions import IncludeLaunchDescription, Shutdown, TimerAction
from launch.launch_description_sources import AnyLaunchDescriptionSource

from launch import LaunchDescription, LaunchService  # type: ignore[attr-defined]

if __name__ == "__main__":
    arguments = sys.argv[1:]
    timers = []
    if arguments[0] == "--seconds":
        timers = [TimerAction(period=float(arguments[1]), actions=[Shutdown(reason="over")])]
        arguments = arguments[2:]
    file, *arguments = arguments
    service = LaunchService(argv=arguments)
    included = IncludeLaunchDescription(
        AnyLaunchDescriptionSource(file),
        launch_arguments=[tuple(argument.split(":=", 1)) for argument in arguments],
    )
    service.include_launch_description(LaunchDescription([included, *timers]))
    sys.exit(service.run())
