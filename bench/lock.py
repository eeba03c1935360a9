# SPDX-License-Identifier: Apache-2.0
"""The share of time for which Python's lock is held in a process.

A thread in C, which needs no lock, looks some ten thousand times a second whether any thread holds it.
(`py-spy --gil` stops the process to look, and found a third less in the same node.) CPython 3.10 and
3.11 only: in later versions a thread can see only its own state.

    python bench/lock.py LIBRARY COUNTS MODULE ARGUMENTS...     runs a module so, counting into a file
"""

from __future__ import annotations

import ctypes
import mmap
import os
import runpy
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_COUNTS = struct.Struct("qq")
NEWEST = (3, 11)
"""Version of Python up to which this works."""


def build(folder: Path) -> Path:
    """Compile lock.so into a folder."""
    library = folder / "lock.so"
    command = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o", str(library)]
    subprocess.run([*command, str(HERE / "lock.c")], check=True)
    return library


def read(counts: Path) -> tuple[int, int]:
    """Return the number of samples in which the lock was held, and that of all samples."""
    held, looked = _COUNTS.unpack(counts.read_bytes())
    return held, looked


def main() -> None:
    """Run a module and count."""
    _, library, counts, module, *arguments = sys.argv
    Path(counts).write_bytes(bytes(_COUNTS.size))
    with open(counts, "r+b") as file:
        shared = mmap.mmap(file.fileno(), _COUNTS.size)
    counter = ctypes.CDLL(library)
    counter.watch(ctypes.byref(ctypes.c_int64.from_buffer(shared)))
    # As `python -m` does it.
    sys.path[0] = os.getcwd()
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        counter.end()


if __name__ == "__main__":
    main()
