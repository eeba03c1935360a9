# SPDX-License-Identifier: Apache-2.0
"""The Python that `make` chooses, beside a sourced ROS 2 and without; `make test-pythons` uses all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "find_python.sh"


def choose(folder: Path, pythons: dict[str, str], **environment: str) -> tuple[int, str]:
    """Run the tool where only these Pythons are on PATH; returns its exit code and what it printed.

    Args:
        folder: for the programs.
        pythons: by name: `plain`, `ros` (has rclpy) or `old` (does not start).
        environment: further variables.

    """
    (folder / "ros").mkdir()
    (folder / "ros" / "rclpy.py").touch()
    for tool in ("bash", "env"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    for name, kind in pythons.items():
        start = f'exec {sys.executable} -S "$@"'  # without site-packages, and so without rclpy
        if kind == "ros":
            start = f"PYTHONPATH={folder}/ros {start}"
        program = folder / name
        program.write_text(f"#!/bin/bash\n{'exit 1' if kind == 'old' else start}\n")
        program.chmod(0o755)
    cleared = {
        k: v for k, v in os.environ.items() if k not in ("ROS_DISTRO", "PYTHON", "PYTHONPATH")
    }
    done = subprocess.run(
        [str(TOOL)],
        env={**cleared, "PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip() or done.stderr.strip()


@pytest.mark.parametrize(
    ("pythons", "environment", "chosen"),
    [
        ({"python3.12": "plain", "python3": "ros"}, {}, "python3.12"),
        ({"python3.12": "plain", "python3": "ros"}, {"ROS_DISTRO": "humble"}, "python3"),
        ({"python3.12": "ros", "python3": "plain"}, {"ROS_DISTRO": "jazzy"}, "python3.12"),
        ({"python3.12": "old", "python3.10": "plain"}, {}, "python3.10"),
        ({"python3.12": "plain", "mine": "plain"}, {"PYTHON": "mine"}, "mine"),
    ],
)
def test_the_python_that_fits_is_chosen(
    pythons: dict[str, str], environment: dict[str, str], chosen: str, tmp_path: Path
) -> None:
    assert choose(tmp_path, pythons, **environment) == (0, chosen)


def test_a_sourced_ros_without_its_python_is_not_passed_over(tmp_path: Path) -> None:
    code, said = choose(tmp_path, {"python3.12": "plain"}, ROS_DISTRO="humble")
    assert code == 1
    assert "imports rclpy of the sourced ROS 2 humble" in said
