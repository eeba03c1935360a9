# SPDX-License-Identifier: Apache-2.0
"""A detector's boxes offline: in Python, on the command line, and in bags."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from emulator.board import Emulator, fused_timings, write_model
from repghost_ros.classifier import Classifier, open_model
from repghost_ros.cli import main
from repghost_ros.engine.model import Region
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import ParameterError
from repghost_ros.sources.signs import render
from repghost_ros.vision.boxes import Box, BoxChoice
from repghost_ros.vision.view import View

SIGNS = ["stop", "yield", "roundabout", "no entry"]
SIDE = 120  # pixels of a sign
PICTURE = np.hstack([render(sign, np.random.default_rng(1), SIDE, SIDE) for sign in SIGNS])
BOXES = [
    Box(SIDE * (number + 0.5), SIDE / 2, SIDE, SIDE, class_id="sign", score=0.9, id=f"{number}")
    for number in range(len(SIGNS))
]


def best(regions: tuple[Region, ...]) -> list[str | None]:
    return [region.results[0].class_id if region.results else None for region in regions]


@pytest.fixture(scope="module")
def model() -> Classifier:
    return open_model("demo")


def test_every_box_has_its_own_answer(model: Classifier) -> None:
    regions = model.classify_regions(PICTURE, BOXES, reporting=Reporting(top_k=2))
    assert best(regions) == SIGNS
    assert [region.box for region in regions] == BOXES
    assert {len(region.results) for region in regions} == {2}
    for region, x in zip(regions, range(0, PICTURE.shape[1], SIDE), strict=True):
        alone = model.classify(PICTURE, View(roi=(x, 0, SIDE, SIDE)), Reporting(top_k=2))
        assert region.results == alone


def test_a_box_that_shows_nothing_has_a_reason(model: Classifier) -> None:
    bad = [Box(-500, 50, 10, 10), Box(50, 50, 0, 10), Box(math.nan, 50, 10, 10)]
    regions = model.classify_regions(PICTURE, [bad[0], BOXES[1], *bad[1:], BOXES[0]])
    assert best(regions) == [None, "yield", None, None, "stop"]
    reasons = ["lies outside the image", "", "no area", "not finite", ""]
    for region, reason in zip(regions, reasons, strict=True):
        assert reason in region.error
        assert bool(region.error) == bool(reason)


def test_only_the_chosen_boxes_are_classified(model: Classifier) -> None:
    boxes = [replace(BOXES[0], class_id="dog"), *BOXES[1:]]
    choice = BoxChoice(classes=frozenset({"sign"}), most=2)
    regions = model.classify_regions(PICTURE, boxes, choice=choice)
    assert best(regions) == [None, "yield", "roundabout", None]
    assert [region.outcome is None for region in regions] == [True, False, False, True]


def test_a_picture_may_have_no_boxes_and_a_view_no_region(model: Classifier) -> None:
    assert model.classify_regions(PICTURE, []) == ()
    with pytest.raises(ParameterError, match="roi is for whole pictures"):
        model.classify_regions(PICTURE, BOXES, View(roi=(0, 0, 9, 9)))


def test_boxes_share_inferences(board: Emulator, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", **fused_timings(4))
    with open_model(model_path=str(path), backend="bpu") as model:
        before = board.stats()["inferences"]
        regions = model.classify_regions(PICTURE, [*BOXES, *BOXES[::-1], BOXES[0]])
        assert board.stats()["inferences"] - before == 3
    assert all(region.results for region in regions)


@pytest.fixture
def street(tmp_path: Path) -> tuple[Path, Path]:
    """Write a picture and its boxes in YOLO's format; the last one lies outside."""
    cv2.imwrite(str(tmp_path / "street.png"), PICTURE)
    rows = [f"7 {(number + 0.5) / len(SIGNS)} 0.5 0.25 1.0" for number in range(len(SIGNS))]
    (tmp_path / "street.txt").write_text("\n".join([*rows, "7 2.0 0.5 0.1 0.1"]))
    return tmp_path / "street.png", tmp_path / "street.txt"


def test_the_command_reports_a_row_a_box(street: tuple[Path, Path], capsys: Any) -> None:
    image, boxes = map(str, street)
    command = ["classify", image, "--boxes", boxes, "--model", "demo"]
    assert main([*command, "--json"]) == 1  # for the box outside
    printed = capsys.readouterr()
    assert "box 4: the box around (960, 60) lies outside the image" in printed.err
    rows = json.loads(printed.out)["results"]
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["results"][0]["class_id"] for row in rows[:4]] == SIGNS
    assert [row["box"]["x"] for row in rows] == [60, 180, 300, 420, 960]
    assert rows[4]["results"] == []
    assert "outside" in rows[4]["error"]
    assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  60,60 120x120 7  ")
    assert [line.split("% ")[1].split("  ")[0] for line in lines[1:5]] == SIGNS


def test_the_command_draws_the_boxes(street: tuple[Path, Path], tmp_path: Path) -> None:
    image, boxes = map(str, street)
    saved = tmp_path / "out"
    main(["classify", image, "--boxes", boxes, "--model", "demo", "--save", str(saved)])
    assert tuple(cv2.imread(str(saved / "street.png"))[119, 60]) == (60, 220, 60)


def test_boxes_go_without_a_region_and_a_camera(street: tuple[Path, Path], capsys: Any) -> None:
    image, boxes = map(str, street)
    assert main(["classify", image, "--boxes", boxes, "--roi", "1,1,9,9"]) == 2
    assert "--roi is for whole pictures" in capsys.readouterr().err
    assert main(["classify", "0", "--boxes", boxes]) == 2
    assert "--boxes is for files" in capsys.readouterr().err
