# SPDX-License-Identifier: Apache-2.0
"""Boxes of a detector, and the part of a frame that each of them shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repghost_ros.errors import FrameError, ParameterError


@dataclass(frozen=True)
class Box:
    """A box in pixels of its image, as in vision_msgs/BoundingBox2D."""

    x: float
    """Of the center, from the left edge."""
    y: float
    """Of the center, from the top edge."""
    width: float
    height: float
    theta: float = 0.0
    """Rotation about the center, in radians."""
    class_id: str = ""
    """What the detector calls it; may be empty."""
    score: float = 0.0
    """The detector's own, 0.0 to 1.0."""
    id: str = ""
    """Identity of the object across images; may be empty."""

    def roi(self, width: int, height: int, scale: float = 1.0) -> tuple[int, int, int, int]:
        """Return the upright region of an image that encloses the scaled box.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
            scale: what the box's sides are multiplied by first.

        Returns:
            x, y, width, height in whole pixels, cut at the image's edges.

        Raises:
            FrameError: the box has no area, lies outside the image, or is not finite.

        """
        sides = (self.x, self.y, self.width, self.height, self.theta)
        if not all(map(math.isfinite, sides)):
            raise FrameError("the box is not finite")
        if self.width <= 0 or self.height <= 0:
            raise FrameError(f"the box has no area: {self.width:g} by {self.height:g} pixels")
        cos, sin = abs(math.cos(self.theta)), abs(math.sin(self.theta))
        half_width = (self.width * cos + self.height * sin) * scale / 2
        half_height = (self.width * sin + self.height * cos) * scale / 2
        left, top = max(0, _floor(self.x - half_width)), max(0, _floor(self.y - half_height))
        right = min(width, _ceil(self.x + half_width))
        bottom = min(height, _ceil(self.y + half_height))
        if left >= right or top >= bottom:
            raise FrameError(f"the box around ({self.x:g}, {self.y:g}) lies outside the image")
        return left, top, right - left, bottom - top


_ROUNDING = 1e-6
"""In pixels: the sine of a right angle is not exactly one, which must not add a row."""


def _floor(value: float) -> int:
    return math.floor(value + _ROUNDING)


def _ceil(value: float) -> int:
    return math.ceil(value - _ROUNDING)


@dataclass(frozen=True)
class BoxChoice:
    """The choice of boxes to classify in an image, and the margin around them.

    Raises:
        ParameterError: a value is out of bounds.

    """

    scale: float = 1.0
    """What a box's sides are multiplied by: above 1.0 the model sees some surroundings."""
    classes: frozenset[str] = frozenset()
    """The detector's classes whose boxes are classified; empty: all."""
    most: int = 32
    """How many boxes of an image are classified at most, the first ones of the array."""

    def __post_init__(self) -> None:
        if not 0.0 < self.scale <= 10.0:
            raise ParameterError(
                f"detections_scale cannot be {self.scale}: give more than 0.0 and at most 10.0"
            )
        if self.most < 1:
            raise ParameterError(f"detections_max cannot be {self.most}: classify at least one box")

    def takes(self, box: Box, taken: int) -> bool:
        """Return whether a box is classified.

        Args:
            box: the next of the array.
            taken: how many boxes of the array are classified already.

        """
        return taken < self.most and (not self.classes or box.class_id in self.classes)

    def rois(
        self, boxes: Sequence[Box], width: int, height: int
    ) -> dict[int, tuple[int, int, int, int] | FrameError]:
        """Return the regions of the boxes that are classified, by their numbers.

        Args:
            boxes: of an image.
            width: of the image, in pixels.
            height: of the image, in pixels.

        Returns:
            x, y, width, height in pixels, or why the box shows nothing.

        """
        rois: dict[int, tuple[int, int, int, int] | FrameError] = {}
        for number, box in enumerate(boxes):
            if self.takes(box, len(rois)):
                try:
                    rois[number] = box.roi(width, height, self.scale)
                except FrameError as error:
                    rois[number] = error
        return rois
