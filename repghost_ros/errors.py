# SPDX-License-Identifier: Apache-2.0
"""Every error raised on purpose: one tree, so that callers can catch as precisely as they need.

Every message says what was wrong and what to do about it.
"""

from __future__ import annotations

import re
from importlib import import_module
from types import ModuleType
from typing import Any

_URL = re.compile(r"\w\w:/{1,2}[^\s'\"<>]+")  # pathlib leaves one slash of two
_USER = re.compile(r"(:/{1,2})[^/?#]*@")
_SECRET = re.compile(
    r"([\w-]*(?:pas|pwd|pw|token|secret|key|auth|sig|cred|session)[\w-]*=)[^&;/?#]+", re.IGNORECASE
)


def without_passwords(text: str) -> str:
    """Return a text whose URLs have no user names, passwords, keys and tokens."""

    def shown(url: re.Match[str]) -> str:
        return _SECRET.sub(r"\1***", _USER.sub(r"\1", url[0]))

    return _URL.sub(shown, text)


class RepghostError(Exception):
    """Root of the tree."""

    def __str__(self) -> str:
        return without_passwords(super().__str__())


class FrameError(RepghostError, ValueError):
    """A message or picture that cannot be classified."""


class BackendError(RepghostError, RuntimeError):
    """A runtime or model that cannot be used, or that failed."""


class StoreError(RepghostError, RuntimeError):
    """A model file that is neither here nor available elsewhere."""


class DownloadError(StoreError):
    """A download that failed and may succeed later."""


class LabelsError(RepghostError, ValueError):
    """Labels that cannot be read or do not fit the model."""


class ParameterError(RepghostError, ValueError):
    """A parameter value that is refused."""


class SourceError(RepghostError, RuntimeError):
    """A bag, folder, list or result file that cannot be read."""


class OutputError(RepghostError, RuntimeError):
    """A result that cannot be written where it was asked for."""


class ConversionError(RepghostError, RuntimeError):
    """A model that cannot be exported, folded, quantized or compiled."""


class DependencyError(RepghostError, RuntimeError):
    """An optional dependency that is not installed, or is broken."""


class FleetError(RepghostError, RuntimeError):
    """Workers that cannot be reached, or that were lost."""


class UsageError(RepghostError, ValueError):
    """A command line that makes no sense."""


def need(module: str, install: str) -> Any:
    """Import an optional dependency.

    Args:
        module: its name, such as `onnx`.
        install: what installs it, such as `pip install onnx`.

    Raises:
        DependencyError: it cannot be imported.

    """
    try:
        imported: ModuleType = import_module(module)
    except Exception as error:  # a broken installation may raise anything
        raise DependencyError(f"{module} is needed here ({error}): {install}") from error
    return imported
