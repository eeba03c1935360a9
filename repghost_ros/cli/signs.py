# SPDX-License-Identifier: Apache-2.0
"""Draw road signs to try the other commands on, in one folder per class, as `repghost eval` expects."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.cli.common import positive
from repghost_ros.cli.terminal import with_bar
from repghost_ros.sources.pictures import write_picture
from repghost_ros.sources.signs import LABELS, MIN_SIDE, render

HELP = "draw road signs to try the other commands on"


@dataclass(frozen=True)
class SignsReport:
    """The pictures that were drawn."""

    folder: Path
    pictures: list[tuple[Path, str]]
    """Files, and the class of each."""
    failed = False

    def text(self) -> Iterator[str]:
        """Yield the number of signs drawn, and the commands that use them."""
        yield (
            f"{len(self.pictures)} pictures of {len(LABELS)} classes in {self.folder}; now try\n"
            f"  repghost classify {self.folder} --model demo\n"
            f"  repghost eval {self.folder} --model demo"
        )

    def as_json(self) -> dict[str, Any]:
        """One dict per picture."""
        return {"results": [{"path": str(path), "class": label} for path, label in self.pictures]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost signs`."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--count", type=positive, default=1, metavar="N", help="pictures per class (default: 1)"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=(640, 480),
        metavar="WxH",
        help="picture size in pixels (default: 640x480)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="random seed (default: 1)")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= MIN_SIDE):
        raise argparse.ArgumentTypeError(f"'{text}' is not WxH of at least {MIN_SIDE} pixels each")
    return int(width), int(height)


def run(options: argparse.Namespace) -> SignsReport:
    """Draw them."""
    drawn = []
    wanted = [(index, number) for number in range(options.count) for index in range(len(LABELS))]
    for index, number in with_bar(wanted, len(wanted), "picture"):
        picture = render(
            LABELS[index], np.random.default_rng([abs(options.seed), index, number]), *options.size
        )
        path = options.folder / LABELS[index].replace(" ", "_") / f"{number}.png"
        write_picture(path, picture)
        drawn.append((path, LABELS[index]))
    return SignsReport(options.folder, drawn)
