# SPDX-License-Identifier: Apache-2.0
"""The part of `launch` and `launch_ros` that our launch files use, for where neither is installed.

It executes a launch file up to the processes it would start. A name or argument that is not here fails
the import or the call; `test_launch.py` compares all of them with the real ones where those are.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class LaunchContext:
    """The context of a launch, as far as a launch file uses it."""

    def __init__(self, *, argv: Iterable[str] | None = None) -> None:
        self.argv = list(argv or ())
        self.launch_configurations = dict(each.split(":=", 1) for each in self.argv if ":=" in each)
        self.is_shutdown = False
        self.started: list[Any] = []


def perform(value: Any, context: LaunchContext) -> str:
    """Return the text of a substitution, or of several one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "".join(perform(each, context) for each in value)
    text: str = value.perform(context)
    return text


@dataclass
class LaunchConfiguration:
    variable_name: Any

    def perform(self, context: LaunchContext) -> str:
        return context.launch_configurations[perform(self.variable_name, context)]


@dataclass
class PathJoinSubstitution:
    substitutions: list[Any]

    def perform(self, context: LaunchContext) -> str:
        return str(Path(*(perform(each, context) for each in self.substitutions)))


@dataclass
class FindPackageShare:
    package: str

    def perform(self, context: LaunchContext) -> str:
        return str(ROOT) if self.package == "repghost_ros" else f"/share/{self.package}"


@dataclass
class PythonLaunchDescriptionSource:
    launch_file_path: Any


@dataclass
class LaunchDescription:
    initial_entities: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class OnProcessExit:
    target_action: Any = None
    on_exit: Any = None


@dataclass(kw_only=True)
class OnShutdown:
    on_shutdown: Any = None


class LaunchDescriptionEntity:
    """An action; `execute` returns those that it leads to."""

    def execute(self, context: LaunchContext) -> list[Any]:
        context.started.append(self)
        return []


@dataclass
class DeclareLaunchArgument(LaunchDescriptionEntity):
    name: str
    default_value: Any = field(default=None, kw_only=True)
    description: str | None = field(default=None, kw_only=True)
    choices: list[str] | None = field(default=None, kw_only=True)

    def execute(self, context: LaunchContext) -> list[Any]:
        given = context.launch_configurations
        if self.name not in given:
            if self.default_value is None:
                raise RuntimeError(f"the argument {self.name} is required")
            given[self.name] = perform(self.default_value, context)
        if self.choices is not None and given[self.name] not in self.choices:
            raise RuntimeError(f"{self.name} must be one of {self.choices}")
        return []


@dataclass(kw_only=True)
class OpaqueFunction(LaunchDescriptionEntity):
    function: Callable[[LaunchContext], Any]

    def execute(self, context: LaunchContext) -> list[Any]:
        return list(self.function(context) or [])


@dataclass
class IncludeLaunchDescription(LaunchDescriptionEntity):
    launch_description_source: Any
    launch_arguments: Iterable[tuple[str, Any]] = field(default=(), kw_only=True)

    def execute(self, context: LaunchContext) -> list[Any]:
        file = perform(self.launch_description_source.launch_file_path, context)
        given = {name: perform(value, context) for name, value in self.launch_arguments}
        context.launch_configurations.update(given)
        if not file.startswith("/share/"):
            return described(Path(file)).initial_entities
        context.started.append(SimpleNamespace(file=file, arguments=given))
        return []


@dataclass
class RegisterEventHandler(LaunchDescriptionEntity):
    event_handler: Any


@dataclass(kw_only=True)
class TimerAction(LaunchDescriptionEntity):
    period: float
    actions: list[Any]


@dataclass(kw_only=True)
class Shutdown(LaunchDescriptionEntity):
    reason: str = ""


class ExecuteProcess(LaunchDescriptionEntity):
    def __init__(self, *, cmd: Iterable[Any], output: str = "log", log_cmd: bool = False) -> None:
        self.cmd = list(cmd)

    def execute(self, context: LaunchContext) -> list[Any]:
        self.command = [perform(each, context) for each in self.cmd]
        return super().execute(context)


class Node(LaunchDescriptionEntity):
    def __init__(
        self,
        *,
        executable: str,
        package: str,
        name: str | None = None,
        namespace: str | None = None,
        parameters: list[Any] | None = None,
        remappings: list[tuple[str, str]] | None = None,
        ros_arguments: list[str] | None = None,
        arguments: list[Any] | None = None,
        output: str = "log",
        emulate_tty: bool = False,
        respawn: bool = False,
        respawn_delay: float | None = None,
    ) -> None:
        self.executable, self.package = executable, package
        self.name, self.namespace = name, namespace
        self.given, self.remappings = parameters or [], remappings or []
        self.respawn = respawn
        self.arguments = arguments or []

    def execute(self, context: LaunchContext) -> list[Any]:
        self.files = [perform(e, context) for e in self.given if not isinstance(e, dict)]
        self.parameters = {
            name: value for e in self.given if isinstance(e, dict) for name, value in e.items()
        }
        self.command = [perform(each, context) for each in self.arguments]
        return super().execute(context)


ProcessExited = SimpleNamespace


def get_ros_node(context: LaunchContext) -> Any:
    """launch_ros's own node, for what a launch file subscribes to."""

    def create_subscription(kind: Any, topic: str, callback: Any, qos: Any) -> None:
        context.started.append(SimpleNamespace(topic=topic, callback=callback))

    return SimpleNamespace(create_subscription=create_subscription)


MODULES: dict[str, dict[str, Any]] = {
    "launch": {
        "LaunchContext": LaunchContext,
        "LaunchDescription": LaunchDescription,
        "LaunchDescriptionEntity": LaunchDescriptionEntity,
    },
    "launch.actions": {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "ExecuteProcess": ExecuteProcess,
        "IncludeLaunchDescription": IncludeLaunchDescription,
        "OpaqueFunction": OpaqueFunction,
        "RegisterEventHandler": RegisterEventHandler,
        "Shutdown": Shutdown,
        "TimerAction": TimerAction,
    },
    "launch.event_handlers": {"OnProcessExit": OnProcessExit, "OnShutdown": OnShutdown},
    "launch.events": {},
    "launch.events.process": {"ProcessExited": ProcessExited},
    "launch.launch_description_sources": {
        "PythonLaunchDescriptionSource": PythonLaunchDescriptionSource
    },
    "launch.substitutions": {
        "LaunchConfiguration": LaunchConfiguration,
        "PathJoinSubstitution": PathJoinSubstitution,
    },
    "launch_ros": {},
    "launch_ros.actions": {"Node": Node},
    "launch_ros.ros_adapters": {"get_ros_node": get_ros_node},
    "launch_ros.substitutions": {"FindPackageShare": FindPackageShare},
}
"""What a launch file may import."""


@contextmanager
def _installed() -> Iterator[None]:
    """Put the stub in place of the real modules, which come back at the end."""
    real = {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("launch", "launch_ros")}
    stub = {}
    for name, contents in MODULES.items():
        stub[name] = ModuleType(name)
        stub[name].__dict__.update(contents)
    for name in real:
        del sys.modules[name]
    sys.modules.update(stub)
    try:
        yield
    finally:
        for name in stub:
            del sys.modules[name]
        sys.modules.update(real)


def described(file: Path) -> LaunchDescription:
    """Load a launch file's description."""
    with _installed():
        description: LaunchDescription = runpy.run_path(str(file))["generate_launch_description"]()
    return description


def started(file: Path, *arguments: str) -> list[Any]:
    """Return the actions of a launch file with these arguments, `name:=value`."""
    context = LaunchContext(argv=arguments)
    waiting = list(described(file).initial_entities)
    while waiting:
        waiting[:0] = waiting.pop(0).execute(context)
    return context.started
