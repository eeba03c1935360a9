# SPDX-License-Identifier: Apache-2.0
"""Print a completion script for your shell.

bash  repghost completion bash | sudo tee /etc/bash_completion.d/repghost
zsh   repghost completion zsh > ~/.zfunc/_repghost  (a folder that is on $fpath before compinit)
fish  repghost completion fish > ~/.config/fish/completions/repghost.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from repghost_ros.errors import need
from repghost_ros.zoo.catalogue import MODEL_NAMES

HELP = "print a completion script for your shell"
SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class CompletionReport:
    """The script."""

    shell: str
    script: str
    failed = False

    def text(self) -> Iterator[str]:
        """Yield the script itself."""
        yield self.script

    def as_json(self) -> dict[str, Any]:
        """Return the script as a JSON string."""
        return {"results": [asdict(self)]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost completion`."""
    parser.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace) -> CompletionReport:
    """Make the script."""
    from repghost_ros.cli.program import make_parser

    shtab = need("shtab", "pip install shtab")
    parser = make_parser(brief=True)
    _say_what_completes(parser, shtab)
    return CompletionReport(options.shell, shtab.complete(parser, shell=options.shell))


def _say_what_completes(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Tell shtab from an argument's metavar how to complete it: with files by default."""
    for action in parser._actions:  # shtab uses it, too; argparse has no public list
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _say_what_completes(command, shtab)
        elif isinstance(action.metavar, str) and not action.choices:
            names = set(action.metavar.split("|"))
            if "MODEL" in names:
                action.complete = _names_or_files(MODEL_NAMES)  # type: ignore[attr-defined]
            elif names == {"DIR"}:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif names & {"DIR", "FILE", "IMAGE", "BAG", "OTHER", "PATH"}:
                action.complete = shtab.FILE  # type: ignore[attr-defined]


def _names_or_files(names: Iterable[str]) -> dict[str, Any]:
    words = " ".join(names)
    function = f"_repghost_{len(words)}_or_file"
    bash = f'{function}() {{ compgen -W "{words}" -- "$1"; compgen -f -- "$1"; }}'
    zsh = f"{function}() {{ _alternative 'models:model:({words})' 'files:file:_files' }}"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"(printf '%s\\n' {words}; __fish_complete_path (commandline -ct))",
        "preamble": {"bash": bash, "zsh": zsh},
    }
