# SPDX-License-Identifier: Apache-2.0
"""The files that colcon and pip install, and the agreement of those that describe the package."""

from __future__ import annotations

import importlib
import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parent.parent


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments that setup.py passes to setuptools."""
    told: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: told.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    return told


def test_name_version_and_license_agree(arguments: dict[str, Any]) -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.findtext("name") == arguments["name"] == "repghost_ros"
    assert package.findtext("version") == arguments["version"]
    assert package.findtext("license") == arguments["license"] == "Apache-2.0"
    assert re.search(
        rf"^{re.escape(arguments['version'])} ", (ROOT / "CHANGELOG.rst").read_text(), re.M
    )
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_shared_file_is_installed(arguments: dict[str, Any]) -> None:
    installed = {path for _, paths in arguments["data_files"] for path in paths}
    for folder in ("launch", "config", "models", "labels"):
        files = {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files
        assert files <= installed
    assert {"package.xml", "resource/repghost_ros"} <= installed


def test_programs_exist(arguments: dict[str, Any]) -> None:
    """`repghost` alone is on PATH; `ros2 run` finds the others in lib/repghost_ros."""
    (program,) = arguments["entry_points"]["console_scripts"]
    assert program.startswith("repghost = ")
    module, function = program.split(" = ")[1].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    programs = dict(arguments["data_files"])["lib/repghost_ros"]
    assert {Path(path).name for path in programs} == {"classifier_node", "camera", "viewer"}
    for path in programs:
        assert (ROOT / path).stat().st_mode & 0o111
        (module,) = re.findall(r"from (\S+) import main", (ROOT / path).read_text())
        assert callable(importlib.import_module(module).main)


def test_dependencies_come_from_apt() -> None:
    """Rosdep's keys that end in -pip bring numpy 2, which breaks apt's OpenCV on Ubuntu 22.04."""
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    named = [element.text or "" for element in package.iter() if element.tag.endswith("depend")]
    assert "python3-numpy" in named
    assert not [name for name in named if name.endswith("-pip")]


def test_every_python_package_is_installed(arguments: dict[str, Any]) -> None:
    folders = {path.parent for path in (ROOT / "repghost_ros").rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(
        arguments["packages"]
    )


def test_every_ros_import_is_a_dependency() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {element.text for element in package.iter() if element.tag.endswith("depend")}
    source = "\n".join(path.read_text() for path in (ROOT / "repghost_ros").rglob("*.py"))
    imported = set(
        re.findall(r"^\s*(?:from|import) (\w+(?:_msgs|_interfaces)|rclpy)\b", source, re.M)
    )
    assert imported <= named
