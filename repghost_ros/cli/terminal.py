# SPDX-License-Identifier: Apache-2.0
"""What is said on the terminal; imports nothing that takes time."""

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
    """From now on an interrupt ends the process at once, where there is nothing to tidy up.

    An exception would be swallowed or printed by what is being imported, or at the interpreter's end.
    """

    def leave(*_: object) -> None:
        os.write(2, b"repghost: interrupted\n")
        os._exit(INTERRUPTED)

    if in_main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, leave)
        signal.signal(signal.SIGTERM, leave)


@contextmanager
def interrupts_raise() -> Iterator[list[int]]:
    """An interrupt raises KeyboardInterrupt here, and so does SIGTERM, so that files are closed.

    The signals that came are listed in what this gives: libraries make other errors of the exception.
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
