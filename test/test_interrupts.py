# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at any moment: exit code 130, one line, no traceback; and what other systems lack."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from helpers.waiting import WAIT

from repghost_ros.output import uninterrupted

CLI = [sys.executable, "-m", "repghost_ros.cli"]


def interrupted(arguments: list[str], seconds: float, kind: int = signal.SIGINT) -> tuple[int, str]:
    """Exit code and stderr of a command that is interrupted after a while."""
    with subprocess.Popen(
        [*CLI, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(seconds)
        process.send_signal(kind)
        assert process.stderr is not None
        return process.wait(WAIT), process.stderr.read()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_any_moment_of_the_start_leaves_no_traceback(kind: int) -> None:
    for step in range(12):
        code, told = interrupted(["bench", "--model", "demo"], step * 0.1, kind)
        if code == -kind or ("Traceback" in told and "repghost_ros" not in told):
            continue  # Python itself was still starting: nothing of this package had run
        assert "Traceback" not in told
        assert code == 130, told
        assert told.count("interrupted") == 1


@pytest.mark.parametrize("threads", ["1", "4"])
def test_an_interrupted_benchmark_does_not_abort(threads: str) -> None:
    for step in range(4):
        arguments = ["bench", "--model", "demo", "--threads", threads, "--seconds", "30"]
        code, told = interrupted(arguments, 1.5 + step * 0.13)
        assert (code, told.count("interrupted")) == (130, 1), told
        assert "terminate" not in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_what_must_not_be_interrupted(number: signal.Signals) -> None:
    def raise_it(*_: object) -> None:
        raise KeyboardInterrupt

    done = []

    def write() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            done.append("the block")

    before = signal.signal(number, raise_it)
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert done == ["the block"]
        assert signal.getsignal(number) is raise_it
    finally:
        signal.signal(number, before)
