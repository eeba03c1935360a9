# SPDX-License-Identifier: Apache-2.0
"""The board runs Humble, for which there are no wheels: only what Humble's rclpy has may be used.

The tables were read off rclpy's humble branch. What is newer stands in a `try` that falls back.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from rclpy.clock import Clock
from rclpy.context import Context
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.parameter import Parameter
from rclpy.time import Time

IMPORTS = {
    "rclpy": {"create_node", "init", "lifecycle", "ok", "try_shutdown"},
    "rclpy.callback_groups": {"CallbackGroup"},
    "rclpy.clock": {"Clock", "ClockType"},
    "rclpy.context": {"Context"},
    "rclpy.duration": {"Duration"},
    "rclpy.executors": {
        "Executor",
        "ExternalShutdownException",
        "ShutdownException",
        "SingleThreadedExecutor",
    },
    "rclpy.guard_condition": {"GuardCondition"},
    "rclpy.impl.implementation_singleton": {"rclpy_implementation"},
    "rclpy.lifecycle": {"LifecycleNode", "LifecycleState", "TransitionCallbackReturn"},
    "rclpy.logging": {"LoggingSeverity"},
    "rclpy.node": {"Node"},
    "rclpy.parameter": {"Parameter"},
    "rclpy.qos": {
        "DurabilityPolicy",
        "QoSCompatibility",
        "QoSProfile",
        "ReliabilityPolicy",
        "qos_check_compatible",
        "qos_profile_sensor_data",
    },
    "rclpy.qos_overriding_options": {"QoSOverridingOptions"},
    "rclpy.signals": {"SignalHandlerOptions"},
    "rclpy.time": {"Time"},
    "rclpy.utilities": {"remove_ros_args"},
}
METHODS = {
    "add_node",
    "add_on_set_parameters_callback",
    "context",
    "create_lifecycle_publisher",
    "create_publisher",
    "create_service",
    "create_subscription",
    "count_publishers",
    "count_subscribers",
    "create_timer",
    "declare_parameter",
    "default_callback_group",
    "destroy_lifecycle_publisher",
    "destroy_node",
    "destroy_publisher",
    "destroy_subscription",
    "from_msg",
    "get_clock",
    "get_fully_qualified_name",
    "get_logger",
    "get_name",
    "get_namespace",
    "get_parameter",
    "get_publishers_info_by_topic",
    "get_topic_names_and_types",
    "get_subscription_count",
    "handle",
    "has_parameter",
    "is_activated",
    "name",
    "nanoseconds",
    "now",
    "ok",
    "on_activate",
    "on_cleanup",
    "on_configure",
    "on_deactivate",
    "on_shutdown",
    "publish",
    "resolve_topic_name",
    "set_parameters",
    "set_parameters_atomically",
    "shutdown",
    "spin_once",
    "to_msg",
    "topic_name",
    "trigger_activate",
    "trigger_configure",
    "undeclare_parameter",
    "value",
    "publishers",
    "wait_for_all_acked",
}
KEYWORDS = {
    "Clock": {"clock_type"},
    "Node": {
        "context",
        "enable_rosout",
        "namespace",
        "start_parameter_services",
        "use_global_arguments",
    },
    "Parameter": {"value"},
    "Duration": {"seconds"},
    "QoSProfile": {"depth", "durability", "reliability"},
    "create_timer": {"callback_group", "clock"},
    "declare_parameter": {"ignore_override"},
    "error": {"throttle_duration_sec"},
    "info": {"throttle_duration_sec"},
    "init": {"args", "signal_handler_options"},
    "resolve_topic_name": {"only_expand"},
    "spin_once": {"timeout_sec"},
    "warning": {"throttle_duration_sec"},
}
CLASSES = (Clock, Context, Executor, LifecycleNode, LifecyclePublisher, Parameter, Time)
PACKAGE = Path(__file__).parent.parent / "repghost_ros"
ROS_FILES = sorted(
    p for p in PACKAGE.rglob("*.py") if "import rclpy" in (t := p.read_text()) or "from rclpy" in t
)

OWN = {
    node.name
    for path in ROS_FILES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef)
    and not (path.stem == "node" and node.name.startswith("on_"))
}
"""Methods of the package itself, which may be called like some of rclpy's."""


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
    for node in ast.walk(tree):
        if node in newer:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rclpy"):
            assert {alias.name for alias in node.names} <= IMPORTS.get(node.module or "", set())
        elif isinstance(node, ast.Import):
            assert {a.name for a in node.names if a.name.startswith("rclpy")} <= {"rclpy"}
        elif isinstance(node, ast.Attribute) and node.attr not in OWN:
            if isinstance(node.value, ast.Name) and node.value.id == "rclpy":
                assert node.attr in IMPORTS["rclpy"]
            elif not node.attr.startswith("_") and any(hasattr(c, node.attr) for c in CLASSES):
                assert node.attr in METHODS, f"line {node.lineno}: not checked against Humble"
        elif isinstance(node, ast.Call):
            function = node.func
            name = (
                function.attr
                if isinstance(function, ast.Attribute)
                else getattr(function, "id", "")
            )
            if name in KEYWORDS:
                keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
                assert keywords <= KEYWORDS[name], f"line {node.lineno}"


def test_there_is_something_to_check() -> None:
    assert {"node", "process", "intake", "parameters"} <= {p.stem for p in ROS_FILES}
