# SPDX-License-Identifier: Apache-2.0
"""Stands in for a sourced workspace, where the package runs from its checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def install(prefix: Path, *others: str) -> Path:
    """Make an ament prefix whose package `repghost_ros` is this checkout, with `others` by name."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    for package in ("repghost_ros", *others):
        (index / package).touch()
    (prefix / "share" / "repghost_ros").symlink_to(ROOT)
    (prefix / "lib").mkdir()
    (prefix / "lib" / "repghost_ros").symlink_to(ROOT / "resource" / "programs")
    return prefix
