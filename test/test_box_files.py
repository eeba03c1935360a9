# SPDX-License-Identifier: Apache-2.0
"""Boxes from COCO's JSON and YOLO's text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repghost_ros.errors import SourceError
from repghost_ros.sources.boxes import read_boxes
from repghost_ros.vision.boxes import Box

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "street/0.png", "width": 640, "height": 480},
        {"id": 2, "file_name": "street/1.png", "width": 640, "height": 480},
    ],
    "annotations": [
        {"id": 7, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40]},
        {"id": 8, "image_id": 1, "category_id": 4, "bbox": [0, 0, 5, 5], "score": 0.5},
    ],
    "categories": [{"id": 3, "name": "sign"}, {"id": 4, "name": "lamp"}],
}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_coco_data_set(tmp_path: Path) -> None:
    boxes = read_boxes(write(tmp_path / "boxes.json", COCO))
    assert boxes.boxes("/somewhere/street/0.png", 640, 480) == [
        Box(25.0, 40.0, 30.0, 40.0, class_id="sign", id="7"),
        Box(2.5, 2.5, 5.0, 5.0, class_id="lamp", score=0.5, id="8"),
    ]
    assert boxes.boxes("street/1.png", 640, 480) == []
    assert boxes.boxes("other.png", 640, 480) == []


def test_coco_results_name_pictures_by_number(tmp_path: Path) -> None:
    results = [{"image_id": 42, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]
    boxes = read_boxes(write(tmp_path / "results.json", results))
    assert boxes.boxes("val/42.jpg", 64, 64) == [Box(2.5, 4.0, 3.0, 4.0, class_id="1", score=0.9)]


def test_yolo_text_is_in_fractions_of_the_picture(tmp_path: Path) -> None:
    text = write(tmp_path / "0.txt", "2 0.5 0.25 0.1 0.2\n\n3 0 0 1 1 0.75\n")
    expected = [
        Box(320.0, 120.0, 64.0, 96.0, class_id="2"),
        Box(0.0, 0.0, 640.0, 480.0, class_id="3", score=0.75),
    ]
    assert read_boxes(text).boxes("any.png", 640, 480) == expected
    folder = read_boxes(tmp_path)
    assert folder.boxes("pictures/0.png", 640, 480) == expected
    assert folder.boxes("pictures/1.png", 640, 480) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "{", "Expecting"),
        ("a.json", {"boxes": []}, "no `images` and `annotations`"),
        ("a.json", 3, "neither a data set nor a list of results"),
        ("a.json", [1], "neither a data set nor a list of results"),
        ("a.json", [{"bbox": [1, 2, 3, 4]}], "lacks image_id"),
        ("a.json", [{"image_id": 1, "bbox": [1, 2, 3]}], "not enough values"),
        ("a.json", {**COCO, "images": []}, "picture 1"),
        ("a.txt", "0 0.5 0.5 0.1\n", "line 1 of a.txt has 4 values"),
        ("a.txt", "0 a b c d\n", "could not convert"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: Any, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        read_boxes(write(tmp_path / name, content))


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="absent.json' cannot be read"):
        read_boxes(tmp_path / "absent.json")
