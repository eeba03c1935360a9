# SPDX-License-Identifier: Apache-2.0
"""Label pictures in the browser: one key or tap each.

The pictures in DIR/unlabeled, and those in DIR itself, are moved into a subfolder for their class. The
page is served to this machine only, unless --host says otherwise: whoever can reach it can label.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from repghost_ros.cli.serving import add_address, served
from repghost_ros.teach.labeling import Labeling, serve_labeling

HELP = "label pictures in the browser"


class LabelReport:
    """Serves while it is iterated over, until interrupted."""

    failed = False
    is_endless = True
    """An interrupt is how it ends."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._labeling = Labeling(options.folder)

    def text(self) -> Iterator[str]:
        """Yield the page's address and, at the end, the counts."""
        yield from self._serve()
        state = self._labeling.state()
        counts = ", ".join(f"{entry['count']} {entry['name']}" for entry in state["classes"])
        yield f"{counts or 'no classes'}; {state['left'] + state['skipped']} unlabeled"

    def as_json(self) -> dict[str, Any]:
        """Return the last state of the page."""
        urls = list(self._serve())
        return {"url": urls[0], "results": [self._labeling.state()]}

    def _serve(self) -> Iterator[str]:
        options = self._options
        serve = partial(serve_labeling, self._labeling)
        with suppress(KeyboardInterrupt), served(serve, options.host, options.port) as address:
            yield f"{address}  (Ctrl-C ends it)"
            while True:
                time.sleep(1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `repghost label`."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    add_address(parser)


def run(options: argparse.Namespace) -> LabelReport:
    """Look at the folder."""
    return LabelReport(options)
