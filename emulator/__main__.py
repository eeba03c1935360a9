# SPDX-License-Identifier: Apache-2.0
"""`python -m emulator MODULE ARGUMENTS`: run a program of this package as if there were a board.

For example `python -m emulator repghost_ros.cli doctor --board-report`. The demo model's .bin answers
as its .onnx does: the class is right, the logits are float ones and not the board's.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path

from emulator.board import Emulator, build


def main() -> None:
    """Build the library, or take the one that REPGHOST_LIBDNN names, and run the program with it."""
    if not sys.argv[1:]:
        sys.exit("usage: python -m emulator MODULE [ARGUMENT ...]")
    with tempfile.TemporaryDirectory(prefix="repghost_emulator_") as folder:
        library = Path(os.environ.get("REPGHOST_LIBDNN") or build(Path(folder)))
        os.environ["REPGHOST_LIBDNN"] = str(library)
        board = Emulator(library)  # which must live as long as the program runs
        board.compute_demo()
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
