# SPDX-License-Identifier: Apache-2.0
"""The record of a model: its files, its preprocessing, and the figures known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from repghost_ros.vision.nv12 import CROP_SHARE

Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Preprocessing:
    """The pictures that a network was trained with."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from R, G and B, 0 to 255; by default ImageNet's mean."""
    scale: tuple[float, float, float] = (0.01712475, 0.017507, 0.01742919)
    """Multiplied by afterwards; by default one over ImageNet's standard deviation."""
    width: int = 224
    """Of the input, in pixels."""
    height: int = 224
    interpolation: Interpolation = "bicubic"
    """Of the evaluation whose accuracy is published with the weights, for information: pictures are
    scaled with one filter whatever it says; docs/zoo.md has what that costs."""
    crop_share: float = CROP_SHARE
    """Share of the short side that this evaluation cuts out of the middle, 0.0 to 1.0."""


IMAGENET = Preprocessing()
"""Of a model that records no other."""


@dataclass(frozen=True)
class Published:
    """Figures of the RDK model zoo for the RDK X5; nothing here was measured by this project."""

    params_m: float
    """Parameters, millions."""
    float_top1: float
    """ImageNet-1k top-1 accuracy of the float model, percent."""
    int8_top1: float
    """The same of the quantized model on the board."""
    latency_1_ms: float
    """Milliseconds per frame with one thread."""
    latency_4_ms: float
    """Milliseconds per frame with four threads."""
    fps: float
    """Frames per second with four threads."""


@dataclass(frozen=True)
class Predicted:
    """Predictions of the vendor's cycle model: one core, random weights, no board.

    `make board-estimates` computes these, see docs/board-estimates.md.
    """

    exported_us: float | None = None
    """Microseconds of one inference on the BPU, of the model as exported, with its branches."""
    fused_us: Mapping[int, float] = field(default_factory=dict)
    """The same of the fused model, of all pictures of a batch, by the pictures of the batch."""

    def fps(self, batch: int = 1) -> float | None:
        """Frames a second of the fused model on the BPU alone; None if not predicted."""
        return batch * 1e6 / self.fused_us[batch] if batch in self.fused_us else None


def compiled_name(stem: str, width: int = 224, height: int = 224, batch: int = 1) -> str:
    """Return the name of a compiled file without its suffix, as the model zoo builds it.

    Args:
        stem: start of the name.
        width: of the input, in pixels.
        height: likewise.
        batch: pictures in one inference; the zoo's files take one.

    """
    return f"{stem}_{width}x{height}_nv12{f'_batch{batch}' if batch > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A classifier of ImageNet-1k."""

    name: str
    """As users write it: `150`, `repvit_m0_9`."""
    family: str
    """Such as RepViT."""
    stem: str
    """Start of the names of its compiled files, letter by letter as in the model zoo: RepGhost_150."""
    timm: str = ""
    """The network in timm; empty if it has none."""
    weights: str = ""
    """timm's repository of published weights on Hugging Face; empty if there is none."""
    weights_sha256: str = ""
    """Of its model.safetensors; empty if this project never saw the file."""
    preprocessing: Preprocessing = IMAGENET
    classes: int = 1000
    license: str = ""
    """Of timm's weights; empty if unknown."""
    source: str
    """The paper."""
    authors_top1: float | None = None
    """Top-1 accuracy of the float model by its authors, percent, where the zoo publishes none."""
    published: Published | None = None
    """None: the zoo does not have the model."""
    predicted: Predicted = Predicted()
    remark: str = ""
    """Oddities of the published figures."""

    def file_name(self, format: str) -> str:
        """Return the name of its file: `bin` for the board, `onnx` for ONNX Runtime."""
        if format == "onnx":
            return f"{self.timm or self.name}.onnx"
        return (
            f"{compiled_name(self.stem, self.preprocessing.width, self.preprocessing.height)}.bin"
        )

    @property
    def fps(self) -> float | None:
        """Frames per second: published, else predicted for the fused model; None if unknown."""
        if self.published:
            return self.published.fps
        return self.predicted.fps()
