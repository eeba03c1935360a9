# SPDX-License-Identifier: Apache-2.0
"""Terminal messages and interrupts; imports nothing slow."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit code."""


def print_error(text: str) -> None:
    """One line on stderr."""
    print(f"repghost: {text}", file=sys.stderr)


def in_main_thread() -> bool:
    """Whether signals may be handled here."""
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
