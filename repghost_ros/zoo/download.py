# SPDX-License-Identifier: Apache-2.0
"""Download one file over HTTP: resumable, and checked for completeness."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from repghost_ros.files import LARGEST

Progress = Callable[[int, int], None]
"""Called with bytes so far and bytes in all, 0 if the server does not say."""

TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of a server that may answer otherwise in a moment."""
_WAITS = (1.0, 2.0, 4.0)  # seconds before the next tries
_LONGEST_WAIT = 10.0  # seconds that a server may ask for
_CHUNK = 1 << 16  # bytes
_TIMEOUT = 30.0  # seconds without data


def receive(url: str, part: Path, validator: Path, progress: Progress | None) -> None:
    """Download a URL into a file, resuming at the file's end if the content is unchanged.

    Args:
        url: what to download.
        part: the file; an earlier call's content is kept.
        validator: file that remembers the content's version.
        progress: called for every chunk.

    Raises:
        HTTPException: the content is incomplete, or too large for a model.
        OSError: the network or the disk failed; urllib.error.HTTPError names a status. One of TEMPORARY
            was tried again.

    """
    for wait in _WAITS:
        try:
            return _receive(url, part, validator, progress)
        except urllib.error.HTTPError as error:
            if error.code not in TEMPORARY:
                raise
            time.sleep(_asked_to_wait(error) or wait)
    return _receive(url, part, validator, progress)


def _asked_to_wait(error: urllib.error.HTTPError) -> float:
    """Return the seconds of Retry-After; 0 if the server does not say."""
    said = error.headers.get("Retry-After", "")
    return min(float(said), _LONGEST_WAIT) if said.isdecimal() else 0.0


def _receive(url: str, part: Path, validator: Path, progress: Progress | None) -> None:
    headers = {}
    begun = part.stat().st_size if part.is_file() else 0
    if begun and validator.is_file():
        headers = {"Range": f"bytes={begun}-", "If-Range": validator.read_text(encoding="latin-1")}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the partial file is not the start of the server's file
            raise
        response = urllib.request.urlopen(url, timeout=_TIMEOUT)
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
            part.unlink()
            raise HTTPException(
                "the server resumed at another position than requested; run again to start over"
            )
        total = _total(response, begun if resumed else 0)
        if not resumed:  # before its validator: the old bytes must never pass for the new file's
            part.unlink(missing_ok=True)
            etag = response.headers.get("ETag") or response.headers.get("Last-Modified")
            if etag:
                validator.write_text(etag, encoding="latin-1")
            else:
                validator.unlink(missing_ok=True)
        # Unbuffered, so that everything received survives the process.
        with part.open("ab" if resumed else "wb", buffering=0) as file:
            while chunk := response.read1(
                _CHUNK
            ):  # as it comes, so that slow downloads show progress
                file.write(chunk)
                if file.tell() > LARGEST:
                    raise HTTPException(f"it is larger than {LARGEST} bytes: no model is")
                if progress is not None:
                    progress(file.tell(), total)
            received = file.tell()
    if total and received != total:
        raise HTTPException(f"it broke off after {received} of {total} bytes; run again to resume")


def _total(response: HTTPResponse, begun: int) -> int:
    """Size of the whole file in bytes; 0 if the server does not say."""
    length = response.headers.get("Content-Length", "")
    return begun + int(length) if length.isdigit() else 0
