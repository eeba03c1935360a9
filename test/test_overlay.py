# SPDX-License-Identifier: Apache-2.0
"""Text on pictures: legible on any background, at any size, with and without Pillow."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from repghost_ros.engine import overlay
from repghost_ros.engine.overlay import draw_overlay, picture
from repghost_ros.engine.results import Result
from repghost_ros.vision.frame import from_array

SHARK = "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias"
NAMES = ("pedestrian crossing", SHARK, "\u505c\u8f66\u8ba9\u884c", "\u00dcberholverbot", "stop")
RESULTS = [Result(name, 0.9 / 2**rank) for rank, name in enumerate(NAMES)]


@pytest.fixture(params=["Pillow", "OpenCV alone"])
def letters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Pillow":
        pytest.importorskip("PIL")
    else:
        monkeypatch.setattr(overlay, "_font", lambda size, letters: None)


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("size", [(160, 120), (448, 172), (641, 481), (3840, 2160)])
@pytest.mark.parametrize("background", [0, 128, 255])
def test_light_text_stands_on_dark(size: tuple[int, int], background: int) -> None:
    rgb = np.full((size[1], size[0], 3), background, np.uint8)
    draw_overlay(rgb, RESULTS)
    height = max(11, size[1] // 24)
    first = rgb[: int(1.3 * height)]
    assert first.max() > 230
    # Around the letters it is dark whatever was there.
    assert np.median(first[:, : size[0] // 4]) <= 0.36 * 255
    assert (rgb[size[1] // 2 + 1 :] == background).all()


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("size", [(1, 1), (32, 32), (40, 8)])
def test_pictures_without_room_are_drawn_on_within_their_bounds(size: tuple[int, int]) -> None:
    framed = np.full((size[1] + 2, size[0] + 2, 3), 77, np.uint8)
    draw_overlay(framed[1:-1, 1:-1], RESULTS)
    around = np.ones(framed.shape, bool)
    around[1:-1, 1:-1] = False
    assert (framed[around] == 77).all()
    assert (framed[~around] != 77).any()


def test_nothing_is_written_of_nothing() -> None:
    rgb = np.full((120, 160, 3), 99, np.uint8)
    draw_overlay(rgb, [])
    assert (rgb == 99).all()


def test_letters_of_other_scripts_differ() -> None:
    pytest.importorskip("PIL")
    if not shutil.which("fc-list"):
        pytest.skip("fontconfig is not installed")
    if not subprocess.run(["fc-list", ":lang=zh-cn"], capture_output=True, check=True).stdout:
        pytest.skip("no font with Chinese letters is installed")
    stop, car = overlay._mask("\u505c", 40), overlay._mask("\u8f66", 40)
    assert stop.any()
    assert not np.array_equal(stop, car)


def test_odd_sizes_stay() -> None:
    assert picture(from_array(np.zeros((121, 161, 3), np.uint8))).shape == (121, 161, 3)
