# SPDX-License-Identifier: Apache-2.0
"""Choose the model file: the user's, the demo's, the store's, or else the archive's.

A file is downloaded into `NAME.part`, resumed from there after an interruption, checked, and only
then renamed; its SHA-256 is recorded beside it and checked on every later use. An .onnx has its
branches fused on arrival: same answers, faster. The original's SHA-256 is kept. A RepGhost that the
archive does not have as .onnx is written from timm's published weights.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from repghost_ros.errors import (
    ConversionError,
    DependencyError,
    DownloadError,
    OutputError,
    StoreError,
)
from repghost_ros.files import (
    check_format,
    locked,
    move,
    record,
    refuse_pointer,
    sha256,
    sidecar_of,
)
from repghost_ros.output import synchronize
from repghost_ros.paths import share
from repghost_ros.zoo.binary import read_compiled
from repghost_ros.zoo.catalogue import (
    DEMO,
    DEMO_FILES,
    MODEL_NAMES,
    MODELS,
    archive_url,
    check_archive,
    nearest,
    weights_url,
)
from repghost_ros.zoo.download import TEMPORARY, Progress, receive
from repghost_ros.zoo.onnx_graph import model_files
from repghost_ros.zoo.record import Record

_log = logging.getLogger(__name__)


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
    """Return the model file to use: `model_path`, the demo's, the store's, or else the archive's.

    Args:
        model: one of MODEL_NAMES; ignored where `model_path` is given.
        format: `bin` for the board or `onnx`.
        model_path: a file of the user's own, or empty.
        progress: called during a download.

    Raises:
        StoreError: there is no such file, it is corrupt, or it cannot be downloaded.

    """
    path = locate(model, format, model_path=model_path, progress=progress)
    if model_path:
        for file in model_files(path):
            refuse_pointer(file)
    return path


def locate(
    model: str, format: str, *, model_path: str = "", progress: Progress | None = None
) -> Path:
    """Do the same without a look into a file of the user's own, which `read_model_file` is to read."""
    if model_path:
        path = Path(model_path).expanduser()
        if not path.is_file():
            raise StoreError(f"model file '{path}' does not exist: check model_path")
        return path
    if model == DEMO:
        return share() / "models" / DEMO_FILES[format]
    store = ModelStore()
    return store.find(model, format) or store.fetch(model, format, progress)


def check_own_name(name: str) -> None:
    """Check that a model of the user's own can be stored under a name.

    Raises:
        StoreError: it cannot.

    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII) or name in MODEL_NAMES:
        raise StoreError(
            f"a model of your own cannot be called '{name}': give a name of letters, digits, _ and - "
            "that `repghost models` does not list"
        )


def is_known(name: str) -> bool:
    """Return whether a name is that of a model: of the catalogue, the demo, or of the user's own."""
    return name in MODEL_NAMES or name in ModelStore().own_names()


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
        """Return the path that a model's file belongs at.

        Raises:
            StoreError: the model is unknown.

        """
        if model not in MODELS:
            if model in self.own_names():
                return self._own / f"{model}.{format}"
            likely = nearest(model)
            meant = f"did you mean '{likely}'? " if likely else ""
            raise StoreError(f"model '{model}' is unknown: {meant}`repghost models` lists them")
        return self.root / MODELS[model].file_name(format)

    def find(self, model: str, format: str) -> Path | None:
        """Return a model's file, or None if the store does not have it.

        A file put there by hand is checked once, and its SHA-256 is recorded.

        Raises:
            StoreError: the file is not a model, or differs from what was recorded.

        """
        path = self.check(model, format)
        if path is not None and not sidecar_of(path).is_file():
            with suppress(OSError):  # the store may be read-only
                record(path)
        return path

    def check(self, model: str, format: str) -> Path | None:
        """Like `find`, but records nothing."""
        path = self.path(model, format)
        if not path.is_file():
            return None
        recorded = sidecar_of(path)
        if not recorded.is_file():
            _check(path, path.name)
        elif recorded.read_text(encoding="ascii", errors="replace").split()[:1] != [sha256(path)]:
            raise StoreError(
                f"'{path}' is not what was recorded in '{recorded.name}': delete both to download "
                "the model afresh, or the latter if you replaced the model yourself"
            )
        return path

    def adopt(self, model: str, format: str, file: Path) -> Path:
        """Move a file into the store as this model's, replacing any other; returns its new path.

        Args:
            model: of the catalogue, or a name for a model of your own.
            format: `bin` or `onnx`.
            file: it is moved.

        Raises:
            StoreError: the file is not a model, or cannot be moved there, or the name is not allowed.

        """
        if model not in MODELS:
            check_own_name(model)
        path = self.path(model, format) if model in MODELS else self._own / f"{model}.{format}"
        _check(file, path.name)
        with self._writing(path):
            sidecar_of(path).unlink(missing_ok=True)  # it would disown the new file
            move(file, path)
            record(path)
        return path

    @property
    def _own(self) -> Path:
        return self.root / "own"

    def own_names(self) -> list[str]:
        """Return the names of the user's own models."""
        files = (path for end in ("bin", "onnx") for path in self._own.glob(f"*.{end}"))
        return sorted({path.stem for path in files})

    def entries(self) -> list[Path]:
        """Return the model files in the store."""
        names = (model.file_name(format) for model in MODELS.values() for format in ("bin", "onnx"))
        return [self.root / name for name in names if (self.root / name).is_file()]

    def fetch(self, model: str, format: str, progress: Progress | None = None) -> Path:
        """Download a model's file; waits for another process that is already downloading it.

        Raises:
            StoreError: it cannot be downloaded or stored, or is not a model.

        """
        path = self.path(model, format)
        if model not in MODELS:
            raise StoreError(
                f"the store has no .{format} of '{model}': put it at '{path}'; repghost quantize "
                "makes a .bin of an .onnx"
            )
        with self._writing(path):
            if self.find(model, format) is None:
                self._download(model, path, progress)
        return path

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Keep other processes from writing the same file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f"{path.name}.lock")):
                yield
        except OSError as error:
            raise StoreError(
                f"'{path.name}' cannot be stored in '{self.root}': {error.strerror or error}; "
                "REPGHOST_HOME names another directory"
            ) from error

    def _download(self, model: str, path: Path, progress: Progress | None) -> None:
        entry = MODELS[model]
        is_onnx = path.suffix == ".onnx"
        make_it = f"make it: repghost quantize {model}"
        if is_onnx:
            make_it = f"make it (pip install torch timm; repghost export {model}), or use '{DEMO}'"
        try:
            if not entry.published:
                raise _AbsentError(f"the model zoo does not have {path.name}")
            self._from_archive(path, progress)
            return
        except DownloadError as error:
            raise DownloadError(f"{error}, or {make_it}") from error
        except _AbsentError as error:
            absent = error
        if not is_onnx or entry.family != "RepGhost":
            raise StoreError(f"{absent}: {make_it}") from absent
        try:
            _from_weights(entry, path, progress)
        except (StoreError, DependencyError) as error:
            raise type(error)(
                f"{absent}; it cannot be made of timm's weights either ({error}): {make_it}"
            ) from error

    def _from_archive(self, path: Path, progress: Progress | None) -> None:
        check_archive(self.url)
        url = self.url + path.name
        part, validator = _parts(path)
        _receive(url, part, validator, progress, path)
        try:
            _check(part, url)
        except StoreError:
            part.unlink()
            raise
        remark = _fuse(part, path) if path.suffix == ".onnx" else ""
        if remark:
            part.unlink()
        else:
            synchronize(part)
            part.replace(path)
        validator.unlink(missing_ok=True)
        record(path, remark)


_PROXY = (
    "{} cannot be downloaded: the proxy wants a name and a password (407): write NAME:PASSWORD@ before "
    "its host in the environment variables https_proxy and http_proxy"
)


class _AbsentError(StoreError):
    """A server that does not have a file."""


def _parts(path: Path) -> tuple[Path, Path]:
    """Return where a download goes until it is complete, and where its version is remembered."""
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.etag")


def _receive(url: str, part: Path, validator: Path, progress: Progress | None, path: Path) -> None:
    """Download, with errors that say what to do."""
    try:
        receive(url, part, validator, progress)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            raise _AbsentError(f"the archive does not have {url}") from error
        if error.code in TEMPORARY:
            raise DownloadError(
                f"{url} cannot be downloaded now ({error.code} {error.reason}): try again later"
            ) from error
        if error.code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise StoreError(_PROXY.format(url)) from error
        raise StoreError(
            f"{url} cannot be downloaded ({error.code} {error.reason}): look at the archive's address, "
            "REPGHOST_MODEL_URL or REPGHOST_WEIGHTS_URL"
        ) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if "407" in str(reason):  # of a tunnel
            raise StoreError(_PROXY.format(url)) from error
        raise DownloadError(
            f"{url} cannot be downloaded ({reason}). Without a network, download it elsewhere and "
            f"put it at {path}"
        ) from error


def _from_weights(model: Record, path: Path, progress: Progress | None) -> None:
    """Write a RepGhost's .onnx from timm's published weights."""
    # Imported here, because a board converts nothing.
    from repghost_ros.graphs.graph import save
    from repghost_ros.zoo.repghost import as_onnx, read_weights

    url, weights = weights_url(model), path.with_name(f"{path.stem}.safetensors")
    part, validator = _parts(weights)
    _receive(url, part, validator, progress, weights)
    try:
        found = sha256(part)
        if model.weights_sha256 not in ("", found):
            raise StoreError(f"{url} has the SHA-256 {found}, not {model.weights_sha256}")
        network = as_onnx(read_weights(part), model.preprocessing)
    except StoreError:
        part.unlink()
        raise
    save(network, path)
    part.unlink()
    validator.unlink(missing_ok=True)
    record(path, f"from {url} with SHA-256 {found}")


def _check(file: Path, origin: str) -> None:
    """Refuse files that are not models, and compiled models that an RDK X5 cannot run."""
    check_format(file, origin)
    for model in read_compiled(file):
        if why := model.unfit():
            raise StoreError(f"{origin} cannot be used: {why}")


def _fuse(original: Path, path: Path) -> str:
    """Fuse a downloaded .onnx; returns the comment to record, empty if nothing was fused."""
    # Imported here, because a board converts nothing.
    from repghost_ros.graphs.fusing import fuse_file

    try:
        fused = fuse_file(original, path)
    except (ConversionError, DependencyError, OutputError) as error:  # the unfused model works, too
        _log.warning("%s is kept as it is published, its branches not fused: %s", path.name, error)
        return ""
    return f"fused, was {sha256(original)}" if fused.nodes < fused.nodes_before else ""
