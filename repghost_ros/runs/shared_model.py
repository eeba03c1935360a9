# SPDX-License-Identifier: Apache-2.0
"""A model shared with workers whose disks may not have its file."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repghost_ros.backends.base import BackendOptions
from repghost_ros.engine.model import Model, ModelSpec
from repghost_ros.runs.fleet import Fleet, shared
from repghost_ros.runs.identity import answers_key
from repghost_ros.zoo.onnx_graph import model_files

_opened: dict[str, Model] = {}
"""In a worker: the model of its latest task."""


@dataclass(frozen=True)
class SharedModel:
    """The data from which a worker opens the model; made by `of`."""

    files: tuple[tuple[str, Any], ...]
    """Path below the model's folder, and content as the fleet shares it, of each of its files."""
    key: str
    """Of its answers."""
    labels: tuple[str, ...]
    backend: str
    options: BackendOptions

    @classmethod
    def of(cls, model: Model, fleet: Fleet) -> SharedModel:
        """Share an opened model with the workers of a fleet; it stays the caller's."""
        files = tuple(
            (str(file.relative_to(model.path.parent)), fleet.share(file.read_bytes()))
            for file in model_files(model.path)
        )
        return cls(files, answers_key(model), model.labels, model.spec.backend, model.spec.options)

    def open(self) -> Model:
        """Open the model in a worker, which keeps it open until it gets another one."""
        if self.key not in _opened:
            while _opened:
                _opened.popitem()[1].close()
            with tempfile.TemporaryDirectory(prefix="repghost_model_") as folder:
                for name, data in self.files:
                    path = Path(folder) / "model" / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(shared(data))
                model = str(Path(folder) / "model" / self.files[0][0])
                labels = (
                    Path(folder) / "labels.json"
                )  # as text, names could be taken for other formats
                labels.write_text(json.dumps(self.labels), encoding="utf-8")
                spec = ModelSpec("", model, str(labels), self.backend, self.options)
                _opened[self.key] = spec.open()
        return _opened[self.key]
