"""Models at work on files instead of topics. Each module is a Python API; none needs ROS."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class OfflineError(RuntimeError):
    """What cannot be done; says why and what to do."""


def need(module: str, install: str) -> Any:
    """Import an optional dependency.

    Args:
        module: its name, such as `onnx`.
        install: what installs it, such as `pip install onnx`.

    Raises:
        OfflineError: it is not installed.

    """
    try:
        imported: ModuleType = import_module(module)
    except Exception as error:  # a broken installation raises anything
        raise OfflineError(f"{module} is needed here ({error}): {install}") from error
    return imported
