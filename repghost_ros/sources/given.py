# SPDX-License-Identifier: Apache-2.0
"""Pictures in whatever form a program has them: as files, bytes, arrays, PIL images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from repghost_ros.errors import FrameError
from repghost_ros.sources.pictures import Picture, PictureError, find, is_video, pictures
from repghost_ros.vision.frame import Frame, from_array

if TYPE_CHECKING:
    from PIL.Image import Image

Given = Union[str, "os.PathLike[str]", bytes, np.ndarray, "Image", Frame, Picture]
"""A path; the content of an image file; uint8 BGR (height, width, 3), BGRA or gray (height, width); a
PIL image of any 8-bit mode; a frame."""


def one_or_many(given: Given | Iterable[Given]) -> Picture | Iterator[Picture]:
    """Return one picture, or an iterator over many; what is neither counts as one.

    Raises:
        FrameError: see `picture_of`.
        PictureError: see `picture_of`; of many, the iterator raises what `pictures_of` does.

    """
    one = isinstance(given, (str, os.PathLike, bytes, Frame, Picture)) or _is_pil(given)
    # Arrays and tensors of any library have a shape.
    if one or hasattr(given, "shape") or not isinstance(given, Iterable):
        return picture_of(given)
    return pictures_of(given)


def picture_of(given: Any, name: str = "picture") -> Picture:
    """Return one picture; files are read later.

    Args:
        given: as Given, or anything else, which is refused.
        name: what errors call one that is in no file.

    Raises:
        FrameError: it is in no form that can be read; the error says how to convert it.
        PictureError: the path does not exist, or is a folder or video.

    """
    if isinstance(given, Picture):
        return given
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if path.is_dir() or is_video(path):
            raise PictureError(
                f"'{path}' may hold many pictures: give [{str(path)!r}], a list, to get one answer "
                "for each"
            )
        find([path])
        return Picture(str(path))
    if isinstance(given, bytes):
        return Picture(name, data=given)
    if _is_pil(given):
        return Picture(name, pixels=_from_pil(given))
    return Picture(name, pixels=given if isinstance(given, Frame) else from_array(given))


def pictures_of(given: Iterable[Any]) -> Iterator[Picture]:
    """Yield pictures, those of folders and videos one by one; one with an error where one is missing.

    Args:
        given: of any form; it and the folders' files are read when their turn comes.

    Raises:
        PictureError: a folder holds no pictures.

    """
    for number, item in enumerate(given):
        if isinstance(item, (str, os.PathLike)) and Path(item).exists():
            yield from pictures(find([Path(item)]))
            continue
        name = f"picture {number}"
        try:
            yield picture_of(item, name)
        except (FrameError, PictureError) as error:
            name = os.fspath(item) if isinstance(item, (str, os.PathLike)) else name
            yield Picture(name, error=str(error))


def _is_pil(given: object) -> bool:
    loaded = sys.modules.get("PIL.Image")  # who has such an image has imported it
    return loaded is not None and isinstance(given, loaded.Image)


def _from_pil(image: Any) -> np.ndarray:
    """Return BGR uint8 (height, width, 3) of a PIL image, turned upright as its EXIF orientation says.

    Raises:
        FrameError: it cannot be read, or the range of its values is not known.

    """
    from PIL import ImageOps

    if image.mode[0] in "IF":  # as of files, 16-bit gray is depth or raw
        raise FrameError(
            f"the range of a PIL image's values is not known in mode {image.mode}: convert it to 8 bits"
        )
    try:
        rgb = ImageOps.exif_transpose(image).convert("RGB")
        return np.ascontiguousarray(np.asarray(rgb)[..., ::-1])
    except Exception as error:  # a lazily opened file may be broken in any way
        raise FrameError(f"the PIL image cannot be read: {error}") from error
