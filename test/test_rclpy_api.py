# SPDX-License-Identifier: Apache-2.0
"""The board runs Humble, for which there are no wheels: only what Humble's rclpy has may be used.

tools/humble_api.py reads the names from rclpy's humble branch (3.3.15 now). Newer ones are
imported in a `try` that falls back.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from rclpy.clock import Clock
from rclpy.context import Context
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.parameter import Parameter
from rclpy.time import Time

HUMBLE = json.loads((Path(__file__).parent / "data" / "rclpy_humble.json").read_text())
CLASSES = (Clock, Context, Executor, LifecycleNode, LifecyclePublisher, Parameter, Time)
PACKAGE = Path(__file__).parent.parent / "repghost_ros"
ROS_FILES = sorted(
    p for p in PACKAGE.rglob("*.py") if "import rclpy" in (t := p.read_text()) or "from rclpy" in t
)

OWN = {
    node.name
    for path in ROS_FILES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
    and not (path.stem == "node" and node.name.startswith("on_"))
}
"""Names of the package itself, which may be called like some of rclpy's."""


def guarded(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes in a `try` that catches ImportError."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        and any(isinstance(h.type, ast.Name) and h.type.id == "ImportError" for h in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }


@pytest.mark.parametrize("path", ROS_FILES, ids=lambda path: path.stem)
def test_only_what_humble_has_is_used(path: Path) -> None:
    tree = ast.parse(path.read_text())
    newer = guarded(tree)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rclpy")
        for alias in node.names
    }
    for node in ast.walk(tree):
        if node in newer:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rclpy"):
            assert {alias.name for alias in node.names} <= set(HUMBLE["modules"][node.module])
        elif isinstance(node, ast.Import):
            assert {a.name for a in node.names if a.name.startswith("rclpy")} <= {"rclpy"}
        elif isinstance(node, ast.Attribute) and node.attr not in OWN:
            if isinstance(node.value, ast.Name) and node.value.id == "rclpy":
                assert node.attr in HUMBLE["modules"]["rclpy"]
            elif not node.attr.startswith("_") and any(hasattr(c, node.attr) for c in CLASSES):
                assert node.attr in HUMBLE["attributes"], f"line {node.lineno}: not in Humble"
        elif isinstance(node, ast.Call):
            function, name = node.func, ""
            if isinstance(function, ast.Attribute) and function.attr not in OWN:
                name = function.attr
            elif isinstance(function, ast.Name) and function.id in imported:
                name = function.id
            known = HUMBLE["arguments"].get(name, ["**"])
            if "**" not in known:
                keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
                assert keywords <= set(known), f"line {node.lineno}: not in Humble"


def test_there_is_something_to_check() -> None:
    assert {"node", "process", "intake", "parameters"} <= {p.stem for p in ROS_FILES}
