# SPDX-License-Identifier: Apache-2.0
"""The `repghost` command: one module per subcommand, each with HELP, add_arguments and run.

`run(options)` returns a `report.Report`, which the program prints. Importing this takes no time, so
that interrupts are handled from the start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from repghost_ros.cli.terminal import INTERRUPTED, print_error, quit_when_interrupted
from repghost_ros.output import open_standard_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit code."""
    try:
        from repghost_ros.cli.program import make_parser, run

        parser = make_parser()
    except ImportError as error:
        print_error(f"{error}: pip install numpy opencv-python-headless")
        return 1
    return run(parser, arguments)


def command() -> None:
    """Run the program; an interrupt never leaves a traceback."""
    quit_when_interrupted()
    open_standard_streams()
    code = main()
    if code == INTERRUPTED:  # libraries abort if the interpreter ends while they are working
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)
