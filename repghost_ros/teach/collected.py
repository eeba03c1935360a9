# SPDX-License-Identifier: Apache-2.0
"""The record of collected pictures: FOLDER/collected.jsonl, a line for each.

A picture keeps its name when it is moved into the folder of its class, so the record still finds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repghost_ros.output import named_errors

RECORD = "collected.jsonl"


def read_record(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a folder's record, the oldest first; damaged lines are left out.

    Raises:
        OSError: it cannot be read.

    """
    path = folder / RECORD
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def read_origins(folder: Path) -> dict[str, str]:
    """Map the names of collected pictures to the recording that each comes from."""
    return {
        Path(entry["file"]).name: str(entry["source"])
        for entry in read_record(folder)
        if "file" in entry and "source" in entry
    }


def append(folder: Path, entry: dict[str, Any]) -> None:
    """Add an entry to a folder's record.

    Raises:
        OutputError: it cannot be written.

    """
    path = folder / RECORD
    with named_errors(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read() != b"\n":  # the last line broke off
                file.write(b"\n")
        file.write(json.dumps(entry, ensure_ascii=True).encode() + b"\n")
