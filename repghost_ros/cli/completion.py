"""Shell completion: `repghost completion bash | sudo tee /etc/bash_completion.d/repghost`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from repghost_ros.errors import need

HELP = "print a completion script for your shell"


@dataclass(frozen=True)
class CompletionReport:
    """The script."""

    shell: str
    script: str
    failed = False

    def text(self) -> Iterator[str]:
        """The script itself."""
        yield self.script

    def as_json(self) -> dict[str, Any]:
        """The script as a string."""
        return {"results": [asdict(self)]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(options: argparse.Namespace) -> CompletionReport:
    """Make the script."""
    from repghost_ros.cli import make_parser

    shtab = need("shtab", "pip install shtab")
    script = shtab.complete(make_parser(), shell=options.shell)
    # What is no option is mostly a path, which bash then completes by itself.
    return CompletionReport(
        options.shell,
        script.replace(
            "complete -o filenames ", "complete -o filenames -o bashdefault -o default "
        ),
    )
