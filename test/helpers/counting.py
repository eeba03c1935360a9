# SPDX-License-Identifier: Apache-2.0
"""The compiled helper with its allocations, copies and calls counted, and allocations that fail."""

from __future__ import annotations

import ctypes
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

import repghost_ros.native as native

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "repghost_ros" / "native"


class Counting:
    """The helper; `calls` counts its functions by name."""

    def __init__(self, folder: Path) -> None:
        objects = [folder / "counting.o", *(folder / f"{c.stem}.o" for c in SOURCES.glob("*.c"))]
        for made in objects:
            is_ours = made.stem == "counting"
            source = (HERE if is_ours else SOURCES) / f"{made.stem}.c"
            replaced = [f"-D{name}=counting_{name}" for name in ("malloc", "free", "memcpy")]
            command = [
                "gcc",
                "-std=gnu11",
                "-O1",
                "-fno-builtin",
                "-U_FORTIFY_SOURCE",
                "-fPIC",
                "-c",
            ]
            command += [*([] if is_ours else replaced), "-ffp-contract=off", "-o", str(made)]
            subprocess.run([*command, str(source)], check=True)
        path = folder / f"compiled{EXTENSION_SUFFIXES[0]}"
        command = ["gcc", "-shared", "-o", str(path), *map(str, objects), "-lm"]
        subprocess.run(command, check=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "__file__", str(folder / "__init__.py"))
            patch.delenv("REPGHOST_NATIVE", raising=False)
            self._library: Any = native.library.__wrapped__()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        if not callable(function):
            return function

        def counted(*arguments: Any) -> Any:
            self.calls[name] += 1
            return function(*arguments)

        return counted

    def _number(self, name: str) -> Any:
        return ctypes.c_long.in_dll(self._library, f"counting_{name}")

    @property
    def allocations(self) -> int:
        """How often it has asked for memory."""
        return int(self._number("allocations").value)

    @property
    def kept(self) -> int:
        """How many of those it has not given back."""
        return int(self._number("kept").value)

    @property
    def large_copies(self) -> int:
        """How often it has copied more than a row."""
        return int(self._number("large_copies").value)

    @contextmanager
    def failing(self, nth: int, count: int = 1) -> Iterator[None]:
        """Let so many allocations fail, the nth from now first."""
        self._number("failures").value = count
        self._number("first_failure").value = self.allocations + nth
        yield
        self._number("first_failure").value = 0
