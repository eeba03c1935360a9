"""A model ready to classify: its file found or fetched, its labels read, its backend open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repghost_ros.backends.base import DEFAULTS, Backend, BackendOptions, Slot
from repghost_ros.backends.registry import choose
from repghost_ros.zoo.catalogue import formats
from repghost_ros.zoo.labels import labels_for, read_labels
from repghost_ros.zoo.store import resolve


@dataclass(frozen=True)
class Classifier:
    """A backend and the names of its classes; itself a backend to the pipeline."""

    model: str
    """Name of the model, such as `150`, `demo` or a file's name."""
    path: Path
    labels: tuple[str, ...]
    color_range: str
    """BT.601 range of the NV12 it wants, `full` or `limited`."""
    backend: Backend

    @property
    def runtime(self) -> str:
        """The runtime in words."""
        return self.backend.runtime

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self.backend.width

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self.backend.height

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.backend.classes

    def open_slot(self) -> Slot:
        """Allocate the buffers of one worker."""
        return self.backend.open_slot()

    def close(self) -> None:
        """Unload the model."""
        self.backend.close()


def open_classifier(
    model: str = "demo",
    *,
    model_path: str = "",
    labels_path: str = "",
    backend: str = "auto",
    options: BackendOptions = DEFAULTS,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """Find (or download) a model, open it, and match it with its labels.

    Args:
        model: a size (`100` to `200`) or `demo`; ignored where `model_path` is given.
        model_path: a model file of your own, or empty.
        labels_path: its labels, one a line; empty for those in the model file, or else ImageNet's.
        backend: one of BACKENDS.
        options: how to run it.
        progress: told (bytes so far, bytes in all) of a download.

    Raises:
        BackendError: no usable runtime, or the model is corrupt or no classifier.
        StoreError: the model is neither here nor to be had.
        LabelsError: the labels cannot be read or do not fit the model.

    """
    runtime = choose(  # before a download that would be in vain
        backend,
        options.bpu_runtime,
        path=Path(model_path) if model_path else None,
        formats=formats(model),
    )
    path = resolve(model, runtime.format, model_path=model_path, progress=progress)
    opened = runtime.open(path, options)
    try:
        labels = (
            read_labels(Path(labels_path), opened.classes)
            if labels_path
            else opened.labels or labels_for("" if model_path else model, opened.classes)
        )
        # The first inference is the slowest everywhere: have it before the first frame.
        slot = opened.open_slot()
        try:
            slot.infer()
        finally:
            slot.close()
    except Exception:
        opened.close()
        raise
    return Classifier(path.name if model_path else model, path, labels, options.color_range, opened)
