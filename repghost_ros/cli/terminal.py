# SPDX-License-Identifier: Apache-2.0
"""Messages and progress bars on stderr, and interrupts; imports nothing slow."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO, TypeVar

from repghost_ros.errors import need, without_passwords

INTERRUPTED = 130
"""Exit code."""

Item = TypeVar("Item")
Advance = Callable[[int, int], None]
"""Called with what is done and the total; moves a progress bar."""


def terminal_width(stream: TextIO) -> int | None:
    """Return the characters of a line on the terminal behind a stream; None of a file or pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fitted(text: str, width: int | None) -> str:
    """Return a text whose longer lines are wrapped between words, so that no number is split.

    A line goes on below its last column; two spaces or more are between columns.

    Args:
        text: lines; addresses and paths stay whole.
        width: characters of a line; None: any number.

    """
    return "\n".join(line if width is None else _fitted(line, width) for line in text.split("\n"))


def _fitted(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    columns = re.match(r"(.*\S)? {2,}(?=\S)", line)
    indent = len(columns[0]) if columns else 0
    if indent > width // 2:
        indent = 2
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_error(text: str) -> None:
    """Print one message on stderr, above a progress bar if there is one."""
    line = fitted(without_passwords(f"repghost: {text}"), terminal_width(sys.stderr))
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print(line, file=sys.stderr)
    else:
        tqdm.tqdm.write(line, file=sys.stderr)


class _Messages(logging.Handler):
    """Prints what the package logs."""

    def emit(self, record: logging.LogRecord) -> None:
        print_error(record.getMessage())


@contextmanager
def messages_printed() -> Iterator[None]:
    """Print in this block what commands and the library log, from INFO on."""
    logger, handler = logging.getLogger("repghost_ros"), _Messages(logging.INFO)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def with_bar(items: Iterable[Item], total: int | None, unit: str) -> Iterable[Item]:
    """Return the items, with a progress bar on stderr if that is a terminal."""
    bar: Iterable[Item] = _tqdm()(items, total=total, unit=f" {unit}", disable=None)
    return bar


def download_bar(name: str) -> AbstractContextManager[Advance]:
    """Return a progress bar on stderr that appears with the first byte."""
    return progress_bar("B", desc=name, unit_scale=True)


@contextmanager
def progress_bar(unit: str, **how: Any) -> Iterator[Advance]:
    """Yield what moves a progress bar on stderr, if that is a terminal."""
    bar: Any = None

    def advance(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = _tqdm()(total=total or None, unit=unit, disable=None, **how)
        bar.update(done - bar.n)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int], None]]:
    """Yield what shows a stage of long work and its percentage on stderr, if that is a terminal."""
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    with _tqdm()(total=100, disable=None, bar_format=form, leave=False) as bar:

        def show(stage: str, percent: int) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.n = percent
            bar.refresh()

        yield show


def _tqdm() -> Callable[..., Any]:
    tqdm: Callable[..., Any] = need("tqdm", "pip install tqdm").tqdm
    return tqdm


def in_main_thread() -> bool:
    """Return whether signals may be handled here."""
    return threading.current_thread() is threading.main_thread()


def quit_when_interrupted() -> None:
    """Let interrupts end the process at once from now on, while there is nothing to clean up.

    An exception could be swallowed or printed by a module being imported or at interpreter exit.
    """

    def leave(*_: object) -> None:
        os.write(2, b"repghost: interrupted\n")
        os._exit(INTERRUPTED)

    if in_main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, leave)
        signal.signal(signal.SIGTERM, leave)


@contextmanager
def interrupts_raise() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt in this block, so that files are closed.

    Yields the list of received signals, because libraries may turn the exception into another.
    """
    heard: list[int] = []

    def interrupt(kind: int, _: object) -> None:
        heard.append(kind)
        raise KeyboardInterrupt

    if not in_main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield heard
        return
    before = [(kind, signal.getsignal(kind)) for kind in (signal.SIGINT, signal.SIGTERM)]
    for kind, _ in before:
        signal.signal(kind, interrupt)
    try:
        yield heard
    finally:
        for kind, handler in before:
            signal.signal(kind, handler)
