"""Download models from the vendor's archive into the store; what is there already is kept."""

from __future__ import annotations

import argparse

from repghost_ros.backends.registry import choose
from repghost_ros.cli.common import add_json, download_bar, print_error, print_json
from repghost_ros.errors import StoreError, UsageError
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.store import ModelStore

HELP = "download models into the store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost download`."""
    parser.add_argument("size", nargs="*", metavar="SIZE", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--all", action="store_true", help="every size")
    parser.add_argument(
        "--format",
        choices=("bin", "onnx"),
        help="bin for the board, onnx for a PC (default: what this machine runs)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Download, and print the files' paths; one failure does not stop the others."""
    sizes = list(MODELS) if options.all else options.size
    if not sizes:
        raise UsageError("name at least one SIZE, or --all")
    unknown = [size for size in sizes if size not in MODELS]
    if unknown:
        raise UsageError(f"unknown size {', '.join(unknown)}: choose of {', '.join(MODELS)}")
    format = options.format or choose().format
    store = ModelStore()
    files, failed = [], False
    for size in sizes:
        try:
            with download_bar(MODELS[size].file_name(format)) as progress:
                path = store.find(size, format) or store.fetch(size, format, progress)
        except StoreError as error:
            print_error(str(error))
            failed = True
        else:
            files.append({"model": size, "path": str(path), "bytes": path.stat().st_size})
            if not options.json:
                print(path)
    if options.json:
        print_json(files)
    return int(failed)
