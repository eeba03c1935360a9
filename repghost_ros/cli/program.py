# SPDX-License-Identifier: Apache-2.0
"""The command line: its parser, and how reports and errors are printed."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from repghost_ros.cli.common import did_you_mean
from repghost_ros.cli.report import Interrupted, Report, print_report
from repghost_ros.cli.terminal import (
    INTERRUPTED,
    interrupts_raise,
    messages_printed,
    print_error,
)
from repghost_ros.errors import RepghostError, UsageError
from repghost_ros.version import __version__

COMMANDS = (
    "models",
    "info",
    "labels",
    "download",
    "classify",
    "replay",
    "play",
    "watch",
    "bench",
    "eval",
    "export",
    "fuse",
    "collect",
    "label",
    "teach",
    "quantize",
    "signs",
    "doctor",
    "completion",
)

_EXIT = """\
exit codes: 0 success, 1 something failed (see stderr), 2 wrong command line, 130 interrupted.
environment: REPGHOST_HOME is the model store, REPGHOST_MODEL_URL a mirror of the archive."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: the usage of some commands is longer than a screen."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}; see {self.prog} --help")
        sys.exit(2)


def make_parser(*, brief: bool = False) -> argparse.ArgumentParser:
    """Return the parser; shell completion is generated from it with brief descriptions."""
    parser = _Parser(
        prog="repghost",
        description="Image classification without ROS: classify, measure, convert, teach.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"repghost_ros {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"repghost_ros.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP if brief else module.__doc__,
            epilog=_EXIT,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print JSON on stdout instead")
        command.set_defaults(run=module.run)
    return parser


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code."""
    for stream in (sys.stdout, sys.stderr):  # file names may be any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        parser.print_help()
        return 0
    if arguments[0][:1] != "-" and arguments[0] not in COMMANDS:
        print_error(f"'{arguments[0]}' is not a command{did_you_mean(arguments[0], COMMANDS)}")
        return 2
    options = parser.parse_args(arguments)
    report: Report | None = None
    try:
        with messages_printed(), interrupts_raise() as heard:
            try:
                report = options.run(options)
                print_report(options.command, report, as_json=options.json)
                sys.stdout.flush()
            except Exception:
                if heard:  # an interrupted import may fail with any exception
                    raise KeyboardInterrupt from None
                raise
            if heard and not _is_endless(report):
                raise KeyboardInterrupt
            return int(report.failed)
    except UsageError as error:
        print_error(f"{error}; see repghost {options.command} --help")
        return 2
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RepghostError, OSError) as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt as interrupt:
        if report is not None and _is_endless(report):
            return int(report.failed)
        if isinstance(interrupt, Interrupted):
            print_report(options.command, interrupt.report, as_json=options.json)
        print_error("interrupted")
        return INTERRUPTED


def _is_endless(report: Report) -> bool:
    """Return whether only an interrupt ends the command, so that one is no error."""
    return bool(getattr(report, "is_endless", False))
