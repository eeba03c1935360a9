# SPDX-License-Identifier: Apache-2.0
"""The catalogue: RepGhost's sizes, their files, and what the vendor published about them."""

from __future__ import annotations

import os
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
    """Figures published by the RDK model zoo for the RDK X5; this project measured none of them."""

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
class Size:
    """One RepGhost: ImageNet-1k, 224x224."""

    name: str
    published: Published

    def file_name(self, format: str) -> str:
        """Name of its file: `bin` for the board, `onnx` for ONNX Runtime."""
        if format == "bin":
            return f"RepGhost_{self.name}_224x224_nv12.bin"
        return f"repghostnet_{self.name}.onnx"


MODELS = {
    name: Size(name, Published(*figures))
    for name, figures in {
        "100": (4.07, 72.50, 72.25, 1.55, 4.08, 965),
        "111": (4.54, 72.75, 71.25, 1.71, 4.47, 881),
        "130": (5.48, 75.00, 73.57, 1.87, 5.30, 744),
        "150": (6.57, 74.75, 73.50, 2.20, 6.30, 627),
        "200": (9.79, 76.43, 75.25, 2.89, 8.76, 451),
    }.items()
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
    """Whether a URL can be the address of an archive.

    Raises:
        StoreError: it is not a web server's address.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise StoreError(
            f"'{url}' is no address of an archive: REPGHOST_MODEL_URL must begin with https:// or "
            "http:// and a server's name"
        )
