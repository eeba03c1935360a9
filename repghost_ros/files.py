# SPDX-License-Identifier: Apache-2.0
"""Model files on disk: moved atomically, sanity-checked, hashed, written by one process at a time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from repghost_ros.errors import StoreError

SMALLEST = 4096
"""Bytes; no model is smaller."""
LARGEST = 1 << 30
"""Bytes; no model is larger."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it at the end; a failure leaves nothing behind.

    Raises:
        OSError: it cannot be put there.

    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def place(file: Path, path: Path) -> None:
    """Move a file atomically, even from another file system.

    Raises:
        OSError: it cannot be written there.

    """
    with whole(path) as temporary:
        shutil.move(file, temporary)


def check_format(path: Path, origin: str) -> None:
    """Refuse what is clearly not a model, such as an error page.

    Raises:
        StoreError: the file is too small, text, compressed, all zeros, or not the expected ONNX graph.

    """
    with path.open("rb") as file:
        head = file.read(SMALLEST)
    text = re.match(rb"(\xef\xbb\xbf)?\s*(<|\{|[\x20-\x7e\s]{64})", head)
    packed = head.startswith((b"\x1f\x8b", b"PK\x03\x04")) or not any(head)
    # An ONNX file is a protobuf whose first field, the IR version, is a small number.
    is_onnx = head[:1] == b"\x08" and 0 < int.from_bytes(head[1:2], "big") < 64
    if len(head) < SMALLEST or text or packed or (".onnx" in path.name and not is_onnx):
        raise StoreError(
            f"{origin} is no model ({path.stat().st_size} bytes, beginning {head[:16]!r}): the "
            "archive or the network answered something else"
        )


def sidecar_of(path: Path) -> Path:
    """Where a file's SHA-256 is recorded."""
    return path.with_name(f"{path.name}.sha256")


def record(path: Path, remark: str = "") -> None:
    """Write the file's SHA-256 beside it in sha256sum's format, with a comment if given."""
    lines = f"{sha256(path)}  {path.name}\n" + (f"# {remark}\n" if remark else "")
    with whole(sidecar_of(path)) as temporary:
        temporary.write_text(lines, encoding="ascii")


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock that is released when the process ends, however it ends."""
    with path.open("w") as file:
        lock(file)
        yield


def lock(file: IO[str], *, wait: bool = True) -> None:
    """Take an exclusive lock, which is released when the file is closed.

    Raises:
        OSError: another process holds it, and waiting was not requested.

    """
    try:
        import fcntl
    except ImportError:  # Windows
        msvcrt: Any = import_module("msvcrt")
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return
            except OSError:  # LK_LOCK waits for ten seconds only
                if not wait:
                    raise
    else:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
