"""Shell completion: `repghost completion bash | sudo tee /etc/bash_completion.d/repghost`."""

from __future__ import annotations

import argparse

from repghost_ros.offline import need

HELP = "print a completion script for your shell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from repghost_ros.cli import make_parser

    shtab = need("shtab", "pip install shtab")
    print(shtab.complete(make_parser(), shell=options.shell))
    return 0
