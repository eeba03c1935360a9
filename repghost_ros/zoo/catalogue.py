# SPDX-License-Identifier: Apache-2.0
"""The catalogue: RepGhost's sizes, their files, and what the vendor published about them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from repghost_ros.errors import StoreError

MEAN = (123.675, 116.28, 103.53)
"""ImageNet's mean of R, G and B, 0 to 255."""
SCALE = (0.01712475, 0.017507, 0.01742919)
"""One over ImageNet's standard deviation of R, G and B."""

_ARCHIVE = "https://archive.d-robotics.cc/downloads/rdk_model_zoo/rdk_x5/"


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
    """What the vendor's cycle model predicts: one core, random weights, no board.

    `make board-estimates` computes these, see docs/board-estimates.md.
    """

    published_us: float
    """Microseconds of one inference on the BPU, of the model as it is published: with its branches."""
    fused_us: Mapping[int, float]
    """The same of the fused model, by the pictures of a batch; of all of them together."""


@dataclass(frozen=True)
class Size:
    """One RepGhost: ImageNet-1k, 224x224."""

    name: str
    published: Published
    predicted: Predicted

    def file_name(self, format: str) -> str:
        """Name of its file: `bin` for the board, `onnx` for ONNX Runtime."""
        if format == "bin":
            return f"RepGhost_{self.name}_224x224_nv12.bin"
        return f"repghostnet_{self.name}.onnx"


MODELS = {
    name: Size(name, Published(*published), Predicted(with_branches, fused))
    for name, published, with_branches, fused in (
        ("100", (4.07, 72.50, 72.25, 1.55, 4.08, 965), 1006.3, {1: 822.1, 4: 1679.0}),
        ("111", (4.54, 72.75, 71.25, 1.71, 4.47, 881), 1084.7, {1: 912.4, 4: 1803.5}),
        ("130", (5.48, 75.00, 73.57, 1.87, 5.30, 744), 1312.6, {1: 1069.9, 4: 2191.0}),
        ("150", (6.57, 74.75, 73.50, 2.20, 6.30, 627), 1506.2, {1: 1255.0, 4: 2624.8}),
        ("200", (9.79, 76.43, 75.25, 2.89, 8.76, 451), 2172.1, {1: 1767.9, 4: 3788.2}),
    )
}
DEMO = "demo"
"""The built-in model of the package's own road signs."""
DEFAULT = "150"
"""What the command and the node run unless told otherwise."""
DEMO_FILES = {"bin": "demo_224x224_nv12.bin", "onnx": "demo.onnx"}
"""Its files in models/, by format."""
MODEL_NAMES = (*MODELS, DEMO)


def archive_url() -> str:
    """Where model files are downloaded from; REPGHOST_MODEL_URL names a mirror."""
    return os.environ.get("REPGHOST_MODEL_URL", _ARCHIVE).rstrip("/") + "/"


def check_archive(url: str) -> None:
    """Whether that can be the address of an archive.

    Raises:
        StoreError: it is no address of a web server.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise StoreError(
            f"'{url}' is no address of an archive: REPGHOST_MODEL_URL must begin with https:// or "
            "http:// and a server's name"
        )
