# SPDX-License-Identifier: Apache-2.0
"""Download models from the vendor's archive into the store; existing files are kept."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from typing import Any

from repghost_ros.backends.registry import choose
from repghost_ros.cli.common import did_you_mean
from repghost_ros.cli.terminal import download_bar
from repghost_ros.errors import StoreError, UsageError
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.store import ModelStore

HELP = "download models into the store"
_log = logging.getLogger(__name__)


class DownloadReport:
    """Downloads while it is iterated over; one failure does not stop the others."""

    def __init__(self, sizes: list[str], format: str) -> None:
        self.failed = False
        self._sizes = sizes
        self._format = format

    def text(self) -> Iterator[str]:
        """The path of every file downloaded or found in the store."""
        for file in self._files():
            if "path" in file:
                yield file["path"]

    def as_json(self) -> dict[str, Any]:
        """One dict per model: its file, or the error."""
        return {"results": list(self._files())}

    def _files(self) -> Iterator[dict[str, Any]]:
        store = ModelStore()
        for size in self._sizes:
            try:
                with download_bar(MODELS[size].file_name(self._format)) as progress:
                    path = store.find(size, self._format) or store.fetch(
                        size, self._format, progress
                    )
            except StoreError as error:
                _log.error(str(error))
                self.failed = True
                yield {"model": size, "error": str(error)}
            else:
                yield {"model": size, "path": str(path), "bytes": path.stat().st_size}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost download`."""
    parser.add_argument("size", nargs="*", metavar="SIZE", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--all", action="store_true", help="all sizes")
    parser.add_argument(
        "--format",
        choices=("bin", "onnx"),
        help="bin for the board, onnx for a PC (default: what this machine runs)",
    )


def run(options: argparse.Namespace) -> DownloadReport:
    """Check the request."""
    sizes = list(MODELS) if options.all else options.size
    if not sizes:
        raise UsageError("name at least one SIZE, or --all")
    unknown = [size for size in sizes if size not in MODELS]
    if unknown:
        raise UsageError(f"'{unknown[0]}' is no size{did_you_mean(unknown[0], MODELS)}")
    return DownloadReport(sizes, options.format or choose().format)
