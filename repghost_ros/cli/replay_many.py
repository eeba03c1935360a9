# SPDX-License-Identifier: Apache-2.0
"""`repghost replay` of many bags: the options and the report; the work is in runs/many.py."""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import model_spec
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import progress_bar
from repghost_ros.errors import UsageError
from repghost_ros.runs.fleet import open_fleet
from repghost_ros.runs.many import FORMATS, Row, find_bags, is_bag, replay_many
from repghost_ros.runs.replay import ReplayOptions
from repghost_ros.sources.remote import is_url

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ManyReport:
    """One row per bag."""

    rows: list[Row]
    out: Path
    seconds: float
    min_agreement: float

    @property
    def failed(self) -> bool:
        """True if a bag was cut off, the backend failed, answers changed too much or, without a
        comparison, frames were refused.
        """
        return any(self._fails(row) for row in self.rows)

    def _fails(self, row: Row) -> bool:
        if row.error or row.failed:
            return True
        if row.agreement is not None:
            return row.agreement < self.min_agreement
        return row.refused > 0

    def text(self) -> Iterator[str | Table]:
        """Yield a table of the bags and their totals."""
        compared = any(row.agreement is not None for row in self.rows)
        yield Table(
            (
                "bag",
                "frames",
                "refused",
                "failed",
                "best class",
                *(("agreement",) if compared else ()),
                "error",
            ),
            [
                (
                    *(row.bag, row.frames, row.refused, row.failed, next(iter(row.classes), None)),
                    *((_percent(row.agreement),) if compared else ()),
                    row.error or None,
                )
                for row in self.rows
            ],
        )
        frames, refused, failed = (
            sum(getattr(row, name) for row in self.rows) for name in ("frames", "refused", "failed")
        )
        yield (
            f"{len(self.rows)} bags, {frames} frames, {refused} refused, {failed} failed, "
            f"in {self.seconds:.1f} s ({frames / self.seconds:.1f} fps); results in {self.out}"
        )

    def as_json(self) -> dict[str, Any]:
        """One dict per bag, and the classes of all bags."""
        classes: Counter[str] = Counter()
        for row in self.rows:
            classes.update(row.classes)
        return {
            "out": str(self.out),
            "seconds": round(self.seconds, 3),
            "classes": dict(classes.most_common()),
            "results": [asdict(row) for row in self.rows],
        }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of many bags."""
    parser.add_argument(
        "--on",
        default="",
        metavar="FLEET",
        help="many bags: local (processes of this machine, the default), ray, or ray://HEAD:10001",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help=f"many bags: format of the results in --out (default: {FORMATS[0]})",
    )


def are_many(options: argparse.Namespace) -> bool:
    """Return whether the command line asks for more than one bag."""
    (first, *others) = options.bags
    path = Path(first)
    lists = path.suffix == ".txt" or (path.is_dir() and not is_bag(path) and _holds_bags(first))
    return bool(options.on or others or is_url(first) or lists)


def _holds_bags(folder: str) -> bool:
    try:
        return bool(find_bags([folder]))
    except Exception:  # the replay of a single bag reports best what is wrong
        return False


def run(options: argparse.Namespace, wanted: ReplayOptions, min_agreement: float) -> ManyReport:
    """Replay all bags.

    Args:
        options: the command line.
        wanted: how every bag is answered.
        min_agreement: share of a bag's frames that must keep their best class where bags are compared.

    Raises:
        UsageError: an option is for one bag, or --out is missing.

    """
    if options.report:
        raise UsageError("--report is for a single bag")
    if wanted.smoothing:  # many bags are answered in parts
        raise UsageError("--smoothing is for a single bag")
    if options.out is None:
        raise UsageError("--out is missing: give a folder for the results of many bags")
    if options.plot or options.list:
        raise UsageError(f"{'--plot' if options.plot else '--list'} is for a single bag")
    bags = find_bags(options.bags)
    started = time.monotonic()
    fleet = open_fleet(options.on or "local", options.workers)
    try:
        with progress_bar("frame") as progress:
            rows = replay_many(
                bags,
                options.out,
                model_spec(options),
                fleet,
                wanted,
                format=options.format or FORMATS[0],
                compare_with=options.compare,
                progress=progress,
            )
    finally:
        fleet.close()
    for row in rows:
        if row.error:
            _log.error("%s: %s", row.bag, row.error)
    return ManyReport(rows, options.out, time.monotonic() - started, min_agreement)
