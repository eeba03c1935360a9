# SPDX-License-Identifier: Apache-2.0
"""A model file's own classes: names, how pictures are fitted, and the threshold of `unknown`.

An .onnx has it in its metadata. A .bin has no room for it, so a file beside it does: NAME.bin.json,
with the SHA-256 of the .bin that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from repghost_ros.errors import BackendError
from repghost_ros.files import sha256
from repghost_ros.output import whole_file
from repghost_ros.vision.nv12 import RESIZE_POLICIES, ResizePolicy
from repghost_ros.vision.view import USUAL, Fit
from repghost_ros.zoo.labels import parse_labels
from repghost_ros.zoo.record import IMAGENET, Preprocessing

NOTHING = "nothing"
"""The class of pictures that show none of the other classes."""
LABELS_KEY = "labels"
"""Metadata: the class names in index order, one a line."""
RESIZE_KEY = "resize"
"""Metadata: how pictures were fitted to the input in training, a resize policy."""
CROP_KEY = "crop_share"
"""Metadata: the share of the short side that the policy `crop` cuts out, above 0 to 1."""
UNKNOWN_BELOW_KEY = "unknown_below"
"""Metadata: the score below which the best class means `unknown`, 0 to 1."""
TRAINED_KEY = "trained_pictures"
"""Metadata: the first 16 digits of the SHA-256 of every training picture, one a line."""
Recorded = Literal["softmax", "sigmoid", "none", "independent"]
"""An activation, as in BackendOptions."""
_MOST = 1 << 24  # bytes of such a file


@dataclass(frozen=True)
class Own:
    """A model file's record of its classes; empty where it has none."""

    labels: tuple[str, ...] = ()
    resize: ResizePolicy | None = None
    """How pictures were fitted to the input in training."""
    unknown_below: float | None = None
    """The score below which the best class means `unknown`; None: it always knows one."""
    activation: Recorded | None = None
    """How its outputs become scores; None: not recorded."""
    trained: frozenset[str] = frozenset()
    """The first 16 digits of the SHA-256 of every training picture."""
    crop_share: float | None = None
    """Share of the short side that `crop` cuts out, above 0 to 1."""

    def fit(self, usual: Preprocessing = IMAGENET) -> Fit:
        """Return how pictures are fitted to the input.

        Args:
            usual: of a model whose file does not say, its record in the catalogue.

        """
        return Fit(self.resize or USUAL.resize, self.crop_share or usual.crop_share)

    @cached_property
    def nothing(self) -> int | None:
        """Index of the class that means `unknown`, if there is one."""
        judges = self.unknown_below is not None and NOTHING in self.labels
        return self.labels.index(NOTHING) if judges else None


NO_RECORD = Own()
"""Of a file that records nothing."""


def own_of(entries: Mapping[str, Any]) -> Own:
    """Return what the metadata of an .onnx, or the file beside a .bin, records.

    Raises:
        ValueError: a value is wrong.
        TypeError: likewise.

    """
    resize, below = entries.get(RESIZE_KEY), entries.get(UNKNOWN_BELOW_KEY)
    crop_share = entries.get(CROP_KEY)
    if resize not in (None, *RESIZE_POLICIES):
        raise ValueError(
            f"{RESIZE_KEY} is '{resize}': expected one of {', '.join(RESIZE_POLICIES)}"
        )
    if below is not None and not 0 <= float(below) <= 1:
        raise ValueError(f"{UNKNOWN_BELOW_KEY} is {below}: expected a number from 0 to 1")
    if crop_share is not None and not 0 < float(crop_share) <= 1:
        raise ValueError(f"{CROP_KEY} is {crop_share}: expected a number above 0, at most 1")
    activation = entries.get("activation")
    if activation not in (None, *get_args(Recorded)):
        raise ValueError(
            f"activation is '{activation}': not one of {', '.join(get_args(Recorded))}"
        )
    labels = entries.get(LABELS_KEY, "")
    return Own(
        parse_labels(labels) if labels else (),
        resize,
        None if below is None else float(below),
        activation,
        frozenset(entries.get(TRAINED_KEY, "").split()),
        None if crop_share is None else float(crop_share),
    )


def read_sidecar(path: Path, content: memoryview) -> Own:
    """Return what is recorded beside a .bin.

    Args:
        path: the .bin.
        content: of the .bin.

    Raises:
        BackendError: it is recorded of another .bin.
        Exception: it cannot be read; see `own_of`.

    """
    beside = sidecar(path)
    if not beside.is_file() or beside.stat().st_size > _MOST:
        return NO_RECORD
    entry = json.loads(beside.read_text(encoding="utf-8"))
    if entry["sha256"] != hashlib.sha256(content).hexdigest():
        raise BackendError(
            f"'{beside}' describes another file than '{path.name}': quantize again, or remove it "
            "and give the labels yourself"
        )
    return own_of(entry)


def digest(path: Path) -> str:
    """Return what names a picture in `Own.trained`: the first 16 digits of its SHA-256.

    Raises:
        OSError: it cannot be read.

    """
    return sha256(path)[:16]


def write_own(own: Own, path: Path) -> None:
    """Write beside a .bin what it cannot record itself.

    Raises:
        OutputError: it cannot be written.

    """
    entry = {
        "sha256": sha256(path),
        LABELS_KEY: "\n".join(own.labels),
        **({RESIZE_KEY: own.resize} if own.resize else {}),
        **({CROP_KEY: own.crop_share} if own.crop_share else {}),
        **({} if own.unknown_below is None else {UNKNOWN_BELOW_KEY: own.unknown_below}),
        **({"activation": own.activation} if own.activation else {}),
        TRAINED_KEY: "\n".join(sorted(own.trained)),
    }
    with whole_file(sidecar(path)) as partial:
        partial.write_text(json.dumps(entry, indent=1), encoding="utf-8")


def sidecar(path: Path) -> Path:
    """Return the path of the file that describes a .bin."""
    return path.with_name(f"{path.name}.json")
