# SPDX-License-Identifier: Apache-2.0
"""Read the boxes of pictures from files: COCO's JSON and YOLO's text."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol

from repghost_ros.errors import SourceError
from repghost_ros.files import read_text
from repghost_ros.vision.boxes import Box


class BoxFile(Protocol):
    """The boxes of one or more pictures."""

    def boxes(self, name: str, width: int, height: int) -> Sequence[Box]:
        """Return a picture's boxes, none if the file has none for it.

        Args:
            name: the picture's, with or without folders.
            width: the picture's, in pixels.
            height: the picture's, in pixels.

        """


def read_boxes(path: Path) -> BoxFile:
    """Open a file of boxes.

    Args:
        path: a .json file in COCO's format (a data set or a list of results), a .txt file in YOLO's
            (`class x y width height [score]`, fractions of the picture, one box a line), or a folder of
            such .txt files named like the pictures.

    Raises:
        SourceError: the file cannot be read, or is in neither format.

    """
    try:
        if path.is_dir():
            return _Yolo({text.stem: _yolo_rows(text) for text in sorted(path.glob("*.txt"))})
        if path.suffix.lower() == ".txt":
            return _Yolo({None: _yolo_rows(path)})
        return _Coco(_coco_boxes(path, json.loads(read_text(path))))
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SourceError(f"'{path}' has no boxes in COCO's or YOLO's format: {error}") from error


class _Yolo:
    """Rows of class, x, y, width, height, score; the key None stands for every picture."""

    def __init__(self, rows: Mapping[str | None, list[tuple[str, list[float]]]]) -> None:
        self._rows = rows

    def boxes(self, name: str, width: int, height: int) -> Sequence[Box]:
        rows = self._rows.get(None) or self._rows.get(PurePath(name).stem, [])
        return [
            Box(
                x=x * width,
                y=y * height,
                width=box_width * width,
                height=box_height * height,
                class_id=class_id,
                score=score[0] if score else 0.0,
            )
            for class_id, (x, y, box_width, box_height, *score) in rows
        ]


class _Coco:
    """Boxes by file name."""

    def __init__(self, boxes: Mapping[str, list[Box]]) -> None:
        self._boxes = boxes

    def boxes(self, name: str, width: int, height: int) -> Sequence[Box]:
        # The folder's part of a name differs between machines: take the longest that fits.
        parts = PurePath(name).parts
        for start in range(len(parts)):
            if (found := self._boxes.get("/".join(parts[start:]))) is not None:
                return found
        return self._boxes.get(PurePath(name).stem, [])


def _yolo_rows(path: Path) -> list[tuple[str, list[float]]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        class_id, *values = line.split()[:7] or ("",)
        if not class_id:
            continue
        if len(values) not in (4, 5):
            raise ValueError(
                f"line {number} of {path.name} has {1 + len(values)} values, not "
                "`class x y width height` or `class x y width height score`"
            )
        rows.append((class_id, [float(value) for value in values]))
    return rows


def _coco_boxes(path: Path, document: Any) -> dict[str, list[Box]]:
    if isinstance(document, dict):
        if "annotations" not in document or "images" not in document:
            raise ValueError("it has no `images` and `annotations`")
        files = {image["id"]: str(image["file_name"]) for image in document["images"]}
        names = {entry["id"]: str(entry["name"]) for entry in document.get("categories", ())}
        annotations = document["annotations"]
    elif isinstance(document, list) and all(isinstance(entry, dict) for entry in document):
        # Results name pictures by number alone.
        files = {entry.get("image_id"): str(entry.get("image_id")) for entry in document}
        names, annotations = {}, document
    else:
        raise ValueError("it is neither a data set nor a list of results")
    boxes: dict[str, list[Box]] = defaultdict(list)
    for name in files.values():
        boxes[name] = []
    for annotation in annotations:
        try:
            image, category = annotation["image_id"], annotation.get("category_id", "")
            x, y, width, height = map(float, annotation["bbox"])
            score = float(annotation.get("score", 0.0))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an annotation lacks image_id or bbox: {error}") from error
        if image not in files:
            raise ValueError(f"an annotation is of picture {image}, which `images` lacks")
        boxes[files[image]].append(
            Box(
                x=x + width / 2,
                y=y + height / 2,
                width=width,
                height=height,
                class_id=names.get(category, str(category)),
                score=score,
                id=str(annotation.get("id", "")),
            )
        )
    return dict(boxes)
