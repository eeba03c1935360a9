# SPDX-License-Identifier: Apache-2.0
"""Shared by the launch files: the node's arguments, and checks before anything is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from repghost_ros.errors import DependencyError, ParameterError
from repghost_ros.ros.parameters import DECLARATIONS

ARGUMENTS = {
    "image": ("image", "Topic of the camera images."),
    "name": ("repghost", "Name of the node."),
    "namespace": ("", "Namespace of the node and its topics."),
    "params_file": ("", "YAML file with the node's parameters; empty: config/classify.yaml."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
    "respawn": ("false", "Start the node again when its process ends."),
}
"""The other arguments of classify.launch.py: default and description."""


def refuse_unknown(file: str, given: Iterable[str], own: Iterable[str] = ()) -> None:
    """Refuse misspelt arguments if this is the launch file on the command line.

    A launch file that includes this one may have its own arguments, so nothing is refused then.

    Args:
        file: the launch file; its XML and YAML versions count as the same.
        given: the command line's `name:=value`.
        own: its arguments besides the node's.

    Raises:
        ParameterError: an argument is unknown.

    """
    if not any(Path(argument).stem == Path(file).stem for argument in sys.argv):
        return
    names = {argument.partition(":=")[0] for argument in given if ":=" in argument}
    unknown = sorted(names - ARGUMENTS.keys() - DECLARATIONS.keys() - set(own))
    if unknown:
        raise ParameterError(
            f"unknown argument {', '.join(unknown)}: "
            f"`ros2 launch -s repghost_ros {Path(file).name}` lists the known ones"
        )


def require(packages: Iterable[str], remedy: str) -> None:
    """Refuse to launch unless these ROS packages are installed; call it before anything is started.

    A package that is missed later ends the launch while processes that it started go on.

    Args:
        packages: names of the packages.
        remedy: how to get them, or to do without.

    Raises:
        DependencyError: a package is missing.

    """
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        raise DependencyError(f"missing: {', '.join(missing)}: {remedy}")


def apt(packages: Iterable[str]) -> str:
    """Return the command that installs ROS packages."""
    distro = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
    names = " ".join(f"ros-{distro}-{package.replace('_', '-')}" for package in packages)
    return f"sudo apt install {names}"


def _is_installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
