# SPDX-License-Identifier: Apache-2.0
"""Commands whose Nth write fails, is their last, or whose Nth large allocation fails.

Run as a program, this is the process that they are forked from, for which faulty.c is preloaded; it
imports what they need once.
"""

from __future__ import annotations

import ctypes
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import repghost_ros

COMPILER = shutil.which("cc") or shutil.which("gcc")
NOT_REACHED = 99
"""Exit status of a command that succeeded before its Nth write."""
_IMPORTED = (
    "cv2",
    "onnx",
    "onnxruntime",
    "onnxruntime.quantization.shape_inference",
    "torch",
    "rosbags.rosbag2",
    "yaml",
    "pyarrow.parquet",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)


class Faulty(AbstractContextManager["Faulty"]):
    """Forks commands from a process that has imported everything.

    Args:
        root: the folder whose files are written with faults.
        scratch: where faulty.c is compiled to.

    """

    def __init__(self, root: Path, scratch: Path) -> None:
        assert COMPILER is not None
        here = Path(__file__).parent
        library = scratch / "faulty.so"
        subprocess.run(
            [
                COMPILER,
                "-shared",
                "-fPIC",
                "-fno-builtin",
                "-o",
                library,
                here / "faulty.c",
                "-ldl",
            ],
            check=True,
        )
        paths = [str(here.parent), str(here.parent.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.faulty"],
            env={
                **os.environ,
                **{"LD_PRELOAD": str(library), "FAULTY_ROOT": str(root)},
                "OMP_NUM_THREADS": "1",  # or torch's threads would wait for each other's turn
                "PYTHONPATH": os.pathsep.join(paths),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, nth: int, how: str, command: list[str]) -> tuple[int, int]:
        """Run a command; returns its exit status and how many calls it made, if it reached its end.

        Args:
            nth: which call.
            how: `fail`, `kill`, or `memory`, for which large allocations count instead of writes.
            command: its words: what follows `repghost`, or `-c` and Python code.

        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([nth, how, command]), file=self._process.stdin, flush=True)
        code, left = map(int, self._process.stdout.readline().split())
        return code, nth - left

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def _run(command: list[str]) -> int:
    if command[0] == "-c":
        exec(command[1], {})
        return 0
    code: int = import_module("repghost_ros.cli").main(command)
    return code


def _child(told: int, nth: int, how: str, command: list[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    faults: Any = ctypes.CDLL(None)
    faults.faulty_left.restype = ctypes.c_long
    faults.faulty_arm(ctypes.c_long(nth), ctypes.c_char(how[0].encode()))
    code = 1
    with suppress(Exception, SystemExit):
        code = _run(command)
    left = faults.faulty_left()
    os.write(told, b"%d" % left)
    os._exit(NOT_REACHED if code == 0 and left > 0 else code)


def _serve() -> None:
    packages = pkgutil.walk_packages(repghost_ros.__path__, "repghost_ros.")
    for name in (*_IMPORTED, *(each.name for each in packages)):
        with suppress(ImportError):
            import_module(name)
    for line in sys.stdin:
        reading, telling = os.pipe()
        child = os.fork()
        if not child:
            _child(telling, *json.loads(line))
        os.close(telling)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        left = os.read(reading, 32) or b"0"
        os.close(reading)
        print(code, int(left), flush=True)


if __name__ == "__main__":
    _serve()
