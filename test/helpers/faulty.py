# SPDX-License-Identifier: Apache-2.0
"""Run a command whose Nth write fails or kills it: `python -m helpers.faulty ROOT N fail|kill ...`.

Needs faulty.c preloaded. The exit status is NOT_REACHED if the command wrote fewer than N times.
"""

from __future__ import annotations

import ctypes
import os
import sys

from repghost_ros.cli import main

NOT_REACHED = 99

if __name__ == "__main__":
    root, nth, how, *command = sys.argv[1:]
    os.environ["FAULTY_ROOT"] = root
    faults = ctypes.CDLL(None)
    faults.faulty_left.restype = ctypes.c_long
    faults.faulty_arm(ctypes.c_long(int(nth)), int(how == "kill"))
    code = main(command)
    os._exit(NOT_REACHED if faults.faulty_left() > 0 else code)
