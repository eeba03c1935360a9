# SPDX-License-Identifier: Apache-2.0
"""Features of pictures: what the last linear layer of a classifier reads, through the node's own NV12.

Besides the picture as it is, its copies are seen: mirrored, cropped, in another light. They stand for
pictures that were not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.engine.model import Answered
from repghost_ros.engine.overlay import picture
from repghost_ros.engine.results import Reporting
from repghost_ros.engine.trunk import open_trunk
from repghost_ros.errors import ConversionError
from repghost_ros.graphs.head import Trunk
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.pictures import read_image
from repghost_ros.vision.frame import Frame, from_array
from repghost_ros.vision.nv12 import ResizePolicy
from repghost_ros.vision.view import View

AS_IS = 0
_LEAST_AREA = 0.5
"""Share of the picture that a crop keeps at least."""
_STRETCH = 0.25  # natural logarithm of a crop's change of shape, at most
_LIGHT = 0.3  # change of brightness, contrast and saturation, at most
_TINT = 0.08  # change of one color, at most
Work = Callable[[Iterable[Any], int], Iterable[Any]]
"""Wraps what is worked through, as a progress bar does; called with how many there are."""


@dataclass(frozen=True)
class Augmented:
    """A picture or one of its copies."""

    path: Path
    number: int
    """0: as it is; others: a copy."""
    mirrors: bool = True
    """May the copy be mirrored."""

    def frame(self) -> Frame:
        """Return what is classified.

        Raises:
            FrameError: the file is broken or no image.
            OSError: it cannot be read.

        """
        frame = read_image(self.path)
        if self.number == AS_IS:
            return frame
        random = np.random.default_rng([self.number, *self.path.name.encode(errors="replace")])
        return from_array(vary(picture(frame)[..., ::-1], random, mirrors=self.mirrors))


def vary(bgr: np.ndarray, random: np.random.Generator, *, mirrors: bool = True) -> np.ndarray:
    """Return a cropped copy in another light, half of them mirrored.

    Args:
        bgr: uint8 (height, width, 3).
        random: decides.
        mirrors: whether a copy may be mirrored.

    """
    height, width = bgr.shape[:2]
    side = np.sqrt(random.uniform(_LEAST_AREA, 1.0))
    shape = np.exp(random.uniform(-_STRETCH, _STRETCH))
    h = max(1, min(height, round(height * side * shape)))
    w = max(1, min(width, round(width * side / shape)))
    y, x = random.integers(height - h + 1), random.integers(width - w + 1)
    values = bgr[y : y + h, x : x + w].astype(np.float32)
    if mirrors and random.random() < 0.5:
        values = values[:, ::-1]
    bright, contrast, color = random.uniform(1 - _LIGHT, 1 + _LIGHT, 3)
    values = values * bright * random.uniform(1 - _TINT, 1 + _TINT, 3)
    values = values.mean() + contrast * (values - values.mean())
    gray = values.mean(axis=2, keepdims=True)
    values = gray + color * (values - gray)
    return np.ascontiguousarray(values.clip(0, 255).astype(np.uint8))


def features(
    trunk: Trunk,
    paths: Sequence[Path],
    resize: ResizePolicy,
    copies: int = 0,
    *,
    mirrors: bool = True,
    work: Work = lambda items, _: items,
) -> np.ndarray:
    """Return the features of pictures and their copies: float32 (pictures, 1 + copies, features).

    Args:
        trunk: a classifier without its head.
        paths: readable pictures.
        resize: how they are fitted to its input.
        copies: how many of each picture.
        mirrors: whether copies may be mirrored.
        work: wraps the looks, as a progress bar does.

    Raises:
        ConversionError: a picture can no longer be read, or the model fails on it.
        BackendError: ONNX Runtime cannot run the model.

    """
    looks = [Augmented(path, number, mirrors) for path in paths for number in range(1 + copies)]
    made = np.empty((len(looks), trunk.features), np.float32)
    with open_trunk(trunk) as model:
        seen = View(resize=resize)
        outcomes = classify_each(model, looks, Augmented.frame, seen, Reporting(top_k=1))
        for at, outcome in enumerate(work(outcomes, len(looks))):
            if not isinstance(outcome, Answered):
                path = outcome.request.message.path
                raise ConversionError(f"'{path}' cannot be used: {outcome.error}")
            made[at] = outcome.logits
    return made.reshape(len(paths), 1 + copies, trunk.features)
