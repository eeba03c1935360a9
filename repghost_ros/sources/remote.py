# SPDX-License-Identifier: Apache-2.0
"""Paths that are URLs (s3://, gs://, http://): fetched once into a local cache, through fsspec."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from repghost_ros.errors import SourceError, need

FSSPEC = "pip install fsspec, and what it needs for that kind of storage: s3fs, gcsfs, aiohttp"


def is_url(path: str) -> bool:
    """Return whether a path is that of a file of some storage service."""
    return "://" in path


def local_copy(url: str, cache: Path) -> Path:
    """Bring a file or folder of a storage service onto this machine's disk.

    Args:
        url: such as s3://bucket/drive.mcap.
        cache: folder of the copies; an up-to-date copy is not fetched again.

    Raises:
        SourceError: it does not exist, or the storage refuses it.
        DependencyError: fsspec or its part for that storage is missing.

    """
    storage, path = _open(url)
    try:
        version = str(storage.ukey(path)) if storage.isfile(path) else _version(storage, path, url)
        key = hashlib.sha256(f"{url}\n{version}".encode()).hexdigest()[:16]
        copy = cache / key / Path(path.rstrip("/")).name
        if not copy.exists():
            partial = cache / f"{key}.{os.getpid()}"
            partial.mkdir(parents=True, exist_ok=True)
            try:
                storage.get(path, str(partial / copy.name), recursive=storage.isdir(path))
                copy.parent.mkdir(exist_ok=True)
                (partial / copy.name).replace(copy)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # every storage raises its own exceptions
        reason = str(error).strip() or type(error).__name__
        raise SourceError(
            f"'{url}' cannot be fetched ({type(error).__name__}: {reason})"
        ) from error
    return copy


def listed(url: str) -> list[str]:
    """URLs of the files below a folder of a storage service, or of the single file.

    Raises:
        SourceError: as for `local_copy`.

    """
    storage, path = _open(url)
    try:
        found = storage.find(path)
        return [str(storage.unstrip_protocol(name)) for name in sorted(found)] or [url]
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise SourceError(f"'{url}' cannot be listed ({type(error).__name__}: {reason})") from error


def _open(url: str) -> tuple[Any, str]:
    fsspec = need("fsspec", FSSPEC)
    try:
        storage, path = fsspec.core.url_to_fs(url)
    except (
        ImportError,
        ValueError,
    ) as error:  # says what to install, or that the protocol is unknown
        raise SourceError(f"'{url}' cannot be opened: {error}") from error
    return storage, str(path)


def _version(storage: Any, folder: str, url: str) -> str:
    files = storage.find(folder)
    if not files:
        raise SourceError(f"'{url}' cannot be fetched: it does not exist, or is empty")
    return "\n".join(f"{name} {storage.ukey(name)}" for name in sorted(files))
