# SPDX-License-Identifier: Apache-2.0
"""What a sourced workspace gives to the launch files, where the package runs from its checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent


def install(prefix: Path) -> Path:
    """Make an ament prefix whose package `repghost_ros` is this checkout; returns it."""
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "repghost_ros"
    marker.parent.mkdir(parents=True)
    marker.touch()
    (prefix / "share" / "repghost_ros").symlink_to(ROOT)
    (prefix / "lib").mkdir()
    (prefix / "lib" / "repghost_ros").symlink_to(ROOT / "resource" / "programs")
    return prefix
