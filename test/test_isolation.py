# SPDX-License-Identifier: Apache-2.0
"""Each run of the tests, a benchmark or the demo has a ROS domain to itself."""

from __future__ import annotations

import os
import subprocess
import sys

import rclpy
from helpers.graph import Robot
from helpers.waiting import WAIT

_TAKE = "from repghost_ros.ros.isolation import isolate; print(isolate()); input()"


def domains_of_runs(count: int, exported: str) -> list[int]:
    """Return the domains of runs that go on at the same time."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKE],
            env={**os.environ, "ROS_DOMAIN_ID": exported},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    domains = [int(run.stdout.readline()) for run in runs if run.stdout]
    for run in runs:
        run.communicate("\n", timeout=WAIT)
    return domains


def test_the_tests_stay_on_this_machine() -> None:
    robot = Robot()
    assert robot.context.get_domain_id() == int(os.environ["ROS_DOMAIN_ID"])
    robot.close()
    if os.environ.get("ROS_DISTRO") == "humble":  # which has no discovery range yet
        assert os.environ["ROS_LOCALHOST_ONLY"] == "1"
    else:
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_two_runs_never_share_a_domain_nor_join_an_exported_one() -> None:
    (lowest,) = domains_of_runs(1, exported="1")
    somebody_elses = rclpy.Context()
    somebody_elses.init(domain_id=lowest)
    node = rclpy.create_node("somebody_elses_robot", context=somebody_elses)
    domains = domains_of_runs(3, exported=str(lowest))
    node.destroy_node()
    somebody_elses.try_shutdown()
    assert len({*domains, lowest, int(os.environ["ROS_DOMAIN_ID"])}) == 5
