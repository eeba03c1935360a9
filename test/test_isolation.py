"""Each run of the tests, a benchmark or the demo has a ROS domain to itself."""

from __future__ import annotations

import os
import subprocess
import sys

import rclpy
from graph import Robot

_TAKE = "from repghost_ros.ros.isolation import isolate; print(isolate()); input()"


def test_this_run_is_alone_in_its_domain(robot: Robot) -> None:
    # `isolate` would take any free domain: this one is taken, by us and by a participant.
    domain = os.environ["ROS_DOMAIN_ID"]
    assert robot.context.get_domain_id() == int(domain)
    assert os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"


def test_two_runs_never_share_a_domain_nor_join_an_exported_one() -> None:
    exported = {**os.environ, "ROS_DOMAIN_ID": "1"}
    with rclpy.Context() as context:
        context.init(domain_id=1)
        robot = rclpy.create_node("somebody_elses_robot", context=context)
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", _TAKE],
                env=exported,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        assert all(run.stdout is not None for run in runs)
        domains = [int(run.stdout.readline()) for run in runs if run.stdout]
        for run in runs:
            run.communicate("\n", timeout=10)
        robot.destroy_node()
    assert len({*domains, 1, int(os.environ["ROS_DOMAIN_ID"])}) == 5
