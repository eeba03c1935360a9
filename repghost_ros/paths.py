# SPDX-License-Identifier: Apache-2.0
"""The location of the package's models, labels, launch and configuration files."""

from __future__ import annotations

import sys
from pathlib import Path


def share() -> Path:
    """Return the package's share directory.

    That is the source checkout if the package runs from one, else where colcon (through the ament
    index) or pip (below sys.prefix) installed it.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "package.xml").is_file():
        return checkout
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory("repghost_ros"))
    except (ImportError, LookupError, OSError):  # no ROS, not built with colcon, not sourced
        return Path(sys.prefix) / "share" / "repghost_ros"
