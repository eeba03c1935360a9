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
from repghost_ros.zoo.catalogue import FAMILIES, MODELS
from repghost_ros.zoo.store import ModelStore

HELP = "download models into the store"
_log = logging.getLogger(__name__)


class DownloadReport:
    """Downloads while it is iterated over; one failure does not stop the others."""

    def __init__(self, models: list[str], format: str) -> None:
        self.failed = False
        self._models = models
        self._format = format

    def text(self) -> Iterator[str]:
        """Yield the path of every file downloaded or found in the store."""
        for file in self._files():
            if "path" in file:
                yield file["path"]

    def as_json(self) -> dict[str, Any]:
        """One dict per model: its file, or the error."""
        return {"results": list(self._files())}

    def _files(self) -> Iterator[dict[str, Any]]:
        store = ModelStore()
        for model in self._models:
            try:
                with download_bar(MODELS[model].file_name(self._format)) as progress:
                    path = store.find(model, self._format) or store.fetch(
                        model, self._format, progress
                    )
            except StoreError as error:
                _log.error(str(error))
                self.failed = True
                yield {"model": model, "error": str(error)}
            else:
                yield {"model": model, "path": str(path), "bytes": path.stat().st_size}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost download`."""
    parser.add_argument("model", nargs="*", metavar="MODEL", help="of `repghost models`")
    parser.add_argument("--family", choices=FAMILIES, metavar="NAME", help="all models of a family")
    parser.add_argument("--all", action="store_true", help="all models of the model zoo")
    parser.add_argument(
        "--format",
        choices=("bin", "onnx"),
        help="bin for the board, onnx for a PC (default: what this machine runs)",
    )


def run(options: argparse.Namespace) -> DownloadReport:
    """Check the request."""
    wanted = list(options.model)
    wanted += [
        record.name
        for record in MODELS.values()
        if record.family == options.family or (options.all and record.published)
    ]
    if not wanted:
        raise UsageError("name at least one MODEL, or give --family NAME or --all")
    unknown = [name for name in wanted if name not in MODELS]
    if unknown:
        raise UsageError(f"'{unknown[0]}' is not a model{did_you_mean(unknown[0], MODELS)}")
    return DownloadReport(list(dict.fromkeys(wanted)), options.format or choose().format)
