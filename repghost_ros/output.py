# SPDX-License-Identifier: Apache-2.0
"""Files that are written completely or not at all, and the standard streams."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repghost_ros.errors import OutputError


def open_standard_streams() -> None:
    """Open /dev/null for those of the three standard streams that the caller has closed.

    Otherwise the next file opened would get their number, and what libraries print would go into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yield a name beside `path` to write to; it becomes `path` at the end of the block.

    Parent folders are created.

    Args:
        path: the file.
        keep: leave what was written, unless it is empty, if the block fails.

    Raises:
        OSError: it cannot be written there.

    """
    # The suffix stays, because writers choose the format by it. Hidden, it is nobody's picture.
    name = f"{path.stem}.partial{path.suffix}"
    partial = path.with_name(name if keep else f".{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        synchronize(partial)
        partial.replace(path)
    finally:
        if not (keep and partial.is_file() and partial.stat().st_size):
            partial.unlink(missing_ok=True)


def synchronize(path: Path) -> None:
    """Wait until a file is on the disk: renamed before, it could be empty after a power cut.

    Raises:
        OSError: it cannot be written there.

    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add the file's name, which the system's error about a full disk lacks.

    Raises:
        OutputError: the block raised an OSError.

    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yield a name to write to like `replacing`.

    Raises:
        OutputError: the file cannot be written.

    """
    with named_errors(path), replacing(path, keep=keep) as partial:
        yield partial


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block, so that what it writes is complete.

    Blocking signals would not do: another thread would receive them for the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)
