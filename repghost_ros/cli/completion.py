"""Shell completion: `repghost completion bash | sudo tee /etc/bash_completion.d/repghost`."""

from __future__ import annotations

import argparse

from repghost_ros.errors import need

HELP = "print a completion script for your shell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from repghost_ros.cli import make_parser

    shtab = need("shtab", "pip install shtab")
    script = shtab.complete(make_parser(), shell=options.shell)
    # What is no option is mostly a path, which bash then completes by itself.
    print(
        script.replace("complete -o filenames ", "complete -o filenames -o bashdefault -o default ")
    )
    return 0
