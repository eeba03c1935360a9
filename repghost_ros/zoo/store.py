"""Model files: found where they are, else fetched from the vendor's archive, once and whole.

A file is downloaded into `NAME.part`, resumed from there when it broke off, checked, and only then
renamed to its name; its SHA-256 is recorded beside it and checked whenever it is used again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from repghost_ros.errors import StoreError
from repghost_ros.paths import share
from repghost_ros.zoo.catalogue import DEMO, MODEL_NAMES, MODELS, archive_url

Progress = Callable[[int, int], None]
"""Told (bytes so far, bytes in all; 0 where the server does not say)."""

_CHUNK = 1 << 16  # bytes
_TIMEOUT = 30.0  # seconds without a byte
_SMALLEST = 4096  # bytes; no model is smaller
_LARGEST = 1 << 30  # bytes; no model is larger


def store_root() -> Path:
    """REPGHOST_HOME, else repghost_ros in the user's XDG cache."""
    home = os.environ.get("REPGHOST_HOME")
    if home:
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "repghost_ros"


def resolve(
    model: str, format: str, *, model_path: str = "", progress: Progress | None = None
) -> Path:
    """The model file to use: `model_path`, the demo's, the store's, or else the archive's.

    Args:
        model: one of MODEL_NAMES; ignored where `model_path` is given.
        format: `bin` for the board or `onnx`.
        model_path: a file of the user's own, or empty.
        progress: told about a download.

    Raises:
        StoreError: there is no such file, it is corrupt, or it cannot be downloaded.

    """
    if model_path:
        path = Path(model_path).expanduser()
        if not path.is_file():
            raise StoreError(f"model file '{path}' does not exist: check model_path")
        return path
    if model == DEMO:
        return share() / "models" / "demo.onnx"
    store = ModelStore()
    return store.find(model, format) or store.fetch(model, format, progress)


class ModelStore:
    """A directory of downloaded models.

    Args:
        root: the directory; the user's own by default.
        url: the archive to download from; the vendor's by default.

    """

    def __init__(self, root: Path | None = None, url: str | None = None) -> None:
        self.root = root or store_root()
        self.url = url or archive_url()

    def path(self, model: str, format: str) -> Path:
        """Where a model's file is, once it is there.

        Raises:
            StoreError: the model is unknown.

        """
        if model not in MODELS:
            raise StoreError(f"model '{model}' is unknown: choose one of {', '.join(MODEL_NAMES)}")
        return self.root / MODELS[model].file_name(format)

    def find(self, model: str, format: str) -> Path | None:
        """A model's file, or None where the store does not have it.

        A file that someone put there by hand is checked once and its SHA-256 recorded.

        Raises:
            StoreError: the file is no model, or is not what was recorded.

        """
        path = self.check(model, format)
        if path is not None and not _sidecar(path).is_file():
            with suppress(OSError):  # a store may be read-only
                _record(path)
        return path

    def check(self, model: str, format: str) -> Path | None:
        """As `find`, but nothing is recorded."""
        path = self.path(model, format)
        if not path.is_file():
            return None
        recorded = _sidecar(path)
        if not recorded.is_file():
            _check_format(path, path.name)
        elif recorded.read_text(encoding="ascii", errors="replace").split()[:1] != [_sha256(path)]:
            raise StoreError(
                f"'{path}' is not what was recorded in '{recorded.name}': delete both to download "
                "the model afresh, or the latter if you replaced the model yourself"
            )
        return path

    def adopt(self, model: str, format: str, file: Path) -> Path:
        """Move a file into the store as this model's, in place of what is there; its new path.

        Raises:
            StoreError: the file is no model, or cannot be moved there.

        """
        path = self.path(model, format)
        _check_format(file, path.name)
        with self._writing(path):
            place(file, path)
            _record(path)
        return path

    def entries(self) -> list[Path]:
        """The model files in the store."""
        names = (model.file_name(format) for model in MODELS.values() for format in ("bin", "onnx"))
        return [self.root / name for name in names if (self.root / name).is_file()]

    def fetch(self, model: str, format: str, progress: Progress | None = None) -> Path:
        """Download a model's file; another process that does so already is waited for.

        Raises:
            StoreError: it cannot be downloaded or stored, or what came is no model.

        """
        path = self.path(model, format)
        with self._writing(path):
            if self.find(model, format) is None:
                self._download(path, progress)
        return path

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Keep other processes from writing this file too."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(f"{path.name}.lock")):
                yield
        except OSError as error:
            raise StoreError(
                f"'{path.name}' cannot be stored in '{self.root}': {error.strerror or error}; "
                "REPGHOST_HOME names another directory"
            ) from error

    def _download(self, path: Path, progress: Progress | None) -> None:
        url = self.url + path.name
        part = path.with_name(f"{path.name}.part")
        validator = path.with_name(f"{path.name}.part.etag")
        try:
            _receive(url, part, validator, progress)
        except urllib.error.HTTPError as error:
            itself = "look at its address, REPGHOST_MODEL_URL"
            if path.suffix == ".onnx":
                itself = "the vendor publishes compiled models only; make it: repghost export SIZE"
            raise StoreError(
                f"the archive does not have {url} ({error.code} {error.reason}): {itself}"
            ) from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            itself = ", or make it: repghost export SIZE" if path.suffix == ".onnx" else ""
            raise StoreError(
                f"{url} cannot be downloaded ({reason}). Without a network, download it elsewhere and "
                f"put it at {path}{itself}"
            ) from error
        try:
            _check_format(part, url)
        except StoreError:
            part.unlink()
            raise
        part.replace(path)
        validator.unlink(missing_ok=True)
        _record(path)


def place(file: Path, path: Path) -> None:
    """Move a file to where it is wanted, whole or not at all, from another file system too.

    Raises:
        OSError: it cannot be written there.

    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        shutil.move(file, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _receive(url: str, part: Path, validator: Path, progress: Progress | None) -> None:
    """Fill `part` with all of `url`, going on where it ends if the file there is still the same."""
    headers = {}
    begun = part.stat().st_size if part.is_file() else 0
    if begun and validator.is_file():
        headers = {"Range": f"bytes={begun}-", "If-Range": validator.read_text(encoding="latin-1")}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:  # what is there does not begin what the server has
            raise
        response = urllib.request.urlopen(url, timeout=_TIMEOUT)
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
            part.unlink()
            raise HTTPException(
                "the server resumed elsewhere than was asked; run again to begin anew"
            )
        total = _total(response, begun if resumed else 0)
        etag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if etag:
            validator.write_text(etag, encoding="latin-1")
        else:
            validator.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read1(_CHUNK):  # what is there: a slow one is told about too
                file.write(chunk)
                if file.tell() > _LARGEST:
                    raise HTTPException(f"it is larger than {_LARGEST} bytes: no model is")
                if progress is not None:
                    progress(file.tell(), total)
            received = file.tell()
    if total and received != total:
        raise HTTPException(f"it broke off after {received} of {total} bytes; run again to resume")


def _total(response: HTTPResponse, begun: int) -> int:
    """Bytes of the whole file, 0 where the server does not say."""
    length = response.headers.get("Content-Length", "")
    return begun + int(length) if length.isdigit() else 0


def _check_format(path: Path, origin: str) -> None:
    """Refuse what is clearly no model, such as an error page.

    Raises:
        StoreError: the file is too small, text, packed or zeros, or no ONNX graph where one is wanted.

    """
    with path.open("rb") as file:
        head = file.read(_SMALLEST)
    text = re.match(rb"(\xef\xbb\xbf)?\s*(<|\{|[\x20-\x7e\s]{64})", head)
    packed = head.startswith((b"\x1f\x8b", b"PK\x03\x04")) or not any(head)
    # An ONNX file is a protobuf whose first field, the IR version, is a small number.
    is_onnx = head[:1] == b"\x08" and 0 < int.from_bytes(head[1:2], "big") < 64
    if len(head) < _SMALLEST or text or packed or (".onnx" in path.name and not is_onnx):
        raise StoreError(
            f"{origin} is no model ({path.stat().st_size} bytes, beginning {head[:16]!r}): the "
            "archive or the network answered something else"
        )


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(path: Path) -> None:
    """Write the file's SHA-256 beside it, as sha256sum does."""
    sidecar = _sidecar(path)
    temporary = sidecar.with_name(f"{sidecar.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{_sha256(path)}  {path.name}\n", encoding="ascii")
        temporary.replace(sidecar)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock that ends with the process, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
