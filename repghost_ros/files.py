# SPDX-License-Identifier: Apache-2.0
"""Files on disk: text files read, and model files moved, checked, hashed and locked."""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from repghost_ros.errors import StoreError
from repghost_ros.output import replacing

SMALLEST = 4096
"""Bytes; no model is smaller."""
LARGEST = 1 << 30
"""Bytes; no model is larger."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What stands in the place of a large file in a clone without Git LFS; its first bytes."""
LFS_REMEDY = "it is a Git LFS pointer, not the file itself: run git lfs pull in its repository"


def read_text(path: Path, errors: str = "strict") -> str:
    """Return the content of a text file: UTF-8, or UTF-16 with a byte order mark.

    Args:
        path: the file.
        errors: what becomes of bytes that are not UTF-8, as `bytes.decode` takes it.

    Raises:
        ValueError: it is in another encoding.
        OSError: it cannot be read.

    """
    data = path.read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 ({error}): save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds zero bytes, as UTF-16 does: save it as UTF-8")
    return text


def read_line(path: Path) -> str:
    """Return the content of a file of one line, such as those of /sys; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def move(file: Path, path: Path) -> None:
    """Move a file atomically, even from another file system.

    Raises:
        OSError: it cannot be written there.

    """
    with replacing(path) as temporary:
        shutil.move(file, temporary)


def check_format(path: Path, origin: str) -> None:
    """Refuse what is clearly not a model, such as an error page.

    Raises:
        StoreError: the file is too small, text, compressed, all zeros, or not the expected ONNX graph.

    """
    with path.open("rb") as file:
        head = file.read(SMALLEST)
    is_text = re.match(rb"(\xef\xbb\xbf)?\s*(<|\{|[\x20-\x7e\s]{64})", head)
    is_archive = head.startswith((b"\x1f\x8b", b"PK\x03\x04")) or not any(head)
    # An ONNX file is a protobuf whose first field, the IR version, is a small number.
    is_onnx = head[:1] == b"\x08" and 0 < int.from_bytes(head[1:2], "big") < 64
    if len(head) < SMALLEST or is_text or is_archive or (".onnx" in path.name and not is_onnx):
        raise StoreError(
            f"{origin} is not a model ({path.stat().st_size} bytes, beginning {head[:16]!r}): the "
            "archive or the network answered something else"
        )


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer, which stands for the file after a clone without Git LFS.

    Raises:
        StoreError: the file is one.

    """
    if is_pointer(path):
        raise StoreError(
            f"'{path}' is a Git LFS pointer, not the file itself: git lfs install, then git lfs pull "
            "in its repository"
        )


def is_pointer(path: Path) -> bool:
    """Return whether a file is a Git LFS pointer; one that cannot be read is not."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def sidecar_of(path: Path) -> Path:
    """Return the path that a file's SHA-256 is recorded in."""
    return path.with_name(f"{path.name}.sha256")


def record(path: Path, remark: str = "") -> None:
    """Write the file's SHA-256 beside it in sha256sum's format, with a comment if given."""
    lines = f"{sha256(path)}  {path.name}\n" + (f"# {remark}\n" if remark else "")
    with replacing(sidecar_of(path)) as temporary:
        temporary.write_text(lines, encoding="ascii")


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
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
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
