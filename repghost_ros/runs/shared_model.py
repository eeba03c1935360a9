# SPDX-License-Identifier: Apache-2.0
"""A model shared with workers whose disks may not have its file."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.backends.base import BackendOptions
from repghost_ros.engine.model import Model, ModelSpec
from repghost_ros.runs.fleet import Fleet, shared

_opened: dict[tuple[Any, ...], Model] = {}
"""In a worker: the model of its latest task."""


@dataclass(frozen=True)
class SharedModel:
    """What a worker needs to open the model; made by `of`."""

    data: Any
    """The file's content, as the fleet shares it."""
    sha256: str
    suffix: str
    labels: tuple[str, ...]
    backend: str
    options: BackendOptions

    @classmethod
    def of(cls, model: Model, spec: ModelSpec, fleet: Fleet) -> SharedModel:
        """An opened model, for the workers of a fleet.

        Args:
            model: stays the caller's.
            spec: what it was opened by.
            fleet: whose workers will open it.

        """
        content = model.path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        share, suffix = fleet.share(content), model.path.suffix
        return cls(share, digest, suffix, model.labels, spec.backend, spec.options)

    def open(self) -> Model:
        """The model, in a worker, which keeps it open until it gets another one."""
        key = (self.sha256, self.labels, self.backend, repr(self.options))
        if key not in _opened:
            while _opened:
                _opened.popitem()[1].close()
            with tempfile.TemporaryDirectory(prefix="repghost_model_") as folder:
                path = Path(folder) / f"{self.sha256[:16]}{self.suffix}"
                path.write_bytes(shared(self.data))
                labels = Path(folder) / "labels.txt"
                labels.write_text("\n".join(self.labels), encoding="utf-8")
                spec = ModelSpec("", str(path), str(labels), self.backend, self.options)
                _opened[key] = spec.open()
        return _opened[key]
