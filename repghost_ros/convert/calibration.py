# SPDX-License-Identifier: Apache-2.0
"""Calibration tensors: pictures as the model sees them, in the layout of the vendor's toolchain.

A tensor is a raw float32 file, channels first in the model's order, 0 to 255: the toolchain normalizes
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from repghost_ros.errors import ConversionError, FrameError
from repghost_ros.output import replacing
from repghost_ros.sources.pictures import find, is_video, read_image
from repghost_ros.vision.nv12 import ColorRange, to_rgb
from repghost_ros.vision.view import USUAL, Fit, View
from repghost_ros.zoo.own import digest

Channels = Literal["rgb", "bgr"]
SAMPLES = 100
"""Pictures that the vendor's samples calibrate with."""

Item = TypeVar("Item")
WrapPictures = Callable[[Iterable[Path], int], Iterable[Path]]
"""Wraps pictures, and how many there are, in an iteration that shows progress."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Tensors on disk, and which pictures they were made from."""

    folder: Path
    """Holds the tensors and nothing else that ends in .rgb."""
    tensors: tuple[Path, ...]
    pictures: tuple[Path, ...]
    """The pictures that became tensors, in their order."""
    held_out: tuple[Path, ...]
    """The other pictures."""
    skipped: tuple[tuple[Path, str], ...]
    """Those that were chosen but cannot be read, and why."""
    height: int
    width: int
    color_range: ColorRange
    channel_order: Channels = "rgb"
    """Of the tensors."""
    fit: Fit = USUAL
    """How pictures were fitted to the input."""

    def nv12(self, picture: Path) -> np.ndarray:
        """Convert another picture like these tensors; see `as_nv12`."""
        return as_nv12(picture, self.height, self.width, self.color_range, self.fit)

    def see(self, picture: Path) -> np.ndarray:
        """Convert another picture like these tensors; see `see`."""
        return see(picture, self.height, self.width, self.color_range, self.fit)

    def read(self, tensor: Path) -> np.ndarray:
        """Return a tensor: float32 (3, height, width) RGB."""
        values = np.fromfile(tensor, np.float32).reshape(3, self.height, self.width)
        return values[::-1] if self.channel_order == "bgr" else values


def as_nv12(
    picture: Path, height: int, width: int, color_range: ColorRange, fit: Fit
) -> np.ndarray:
    """Return a picture as the model's input: uint8 (height * 3 // 2, width) NV12.

    Raises:
        FrameError: the file is broken or not an image.
        OSError: it cannot be read.

    """
    nv12 = np.empty((height * 3 // 2, width), np.uint8)
    View().plan(read_image(picture), nv12, color_range, fit).run()
    return nv12


def see(
    picture: Path, height: int, width: int, color_range: ColorRange = "full", fit: Fit = USUAL
) -> np.ndarray:
    """Return a picture as the model sees it, fitted to its input and converted to NV12.

    Returns:
        float32 (3, height, width) RGB, whole levels 0 to 255.

    Raises:
        FrameError: the file is broken or not an image.
        OSError: it cannot be read.

    """
    nv12 = as_nv12(picture, height, width, color_range, fit)
    rgb = to_rgb(nv12, color_range).transpose(2, 0, 1)
    return np.ascontiguousarray(rgb, np.float32)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """`count` evenly spread items, or all if there are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def calibrate(
    pictures: Path,
    out: Path,
    *,
    height: int = 224,
    width: int = 224,
    samples: int = SAMPLES,
    color_range: ColorRange = "full",
    channel_order: Channels = "rgb",
    fit: Fit = USUAL,
    trained: Collection[str] = (),
    progress: WrapPictures = lambda items, _: items,
) -> Calibration:
    """Write OUT/calibration_data_rgb_f32, or bgr, replacing an earlier run's.

    Args:
        pictures: a folder, ideally with one subfolder per class.
        out: folder in which the tensors' folder is created.
        height: of the model's input, pixels, even.
        width: likewise.
        samples: number of pictures, evenly spread over the sorted paths, hence over the classes.
        color_range: BT.601 range of the model's NV12 input.
        channel_order: the float model's.
        fit: how pictures are fitted to the input.
        trained: digests of the pictures that the model was trained with, see zoo.own. It is calibrated
            with these, and they are not held out.
        progress: wraps the iteration over the pictures.

    Raises:
        ConversionError: there are no pictures, or none of the chosen ones can be read.
        OSError: a tensor cannot be written.

    """
    files = [path for path in find([pictures]) if not is_video(path)]
    seen = {path for path in files if trained and digest(path) in trained}
    taken = spread(sorted(seen) or files, samples)
    folder = out / f"calibration_data_{channel_order}_f32"
    folder.mkdir(parents=True, exist_ok=True)
    # The toolchain reads every file it finds.
    for old in folder.glob("*.rgb"):
        old.unlink()
    made: dict[Path, Path] = {}
    skipped = []
    for number, path in enumerate(progress(taken, len(taken))):
        try:
            tensor = see(path, height, width, color_range, fit)
        except (FrameError, OSError) as error:
            skipped.append((path, str(error)))
            continue
        # The number distinguishes pictures of the same name.
        made[path] = folder / f"{number:05d}_{path.stem}.rgb"
        with replacing(made[path]) as partial:
            (tensor[::-1] if channel_order == "bgr" else tensor).tofile(partial)
    if not made:
        why = f", such as {skipped[0][1]}" if skipped else ", only videos"
        raise ConversionError(
            f"no picture in '{pictures}' can be used ({len(taken)} tried{why}): give a folder of "
            "images like those the model will see"
        )
    chosen = seen.union(taken)
    return Calibration(
        folder=folder,
        tensors=tuple(made.values()),
        pictures=tuple(made),
        held_out=tuple(path for path in files if path not in chosen),
        skipped=tuple(skipped),
        height=height,
        width=width,
        color_range=color_range,
        channel_order=channel_order,
        fit=fit,
    )
