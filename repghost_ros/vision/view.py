# SPDX-License-Identifier: Apache-2.0
"""The part of a frame that the model sees, fitted to the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from repghost_ros.errors import ParameterError
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import (
    COLOR_RANGES,
    CROP_SHARE,
    INTERPOLATIONS,
    RESIZE_POLICIES,
    ColorRange,
    Interpolation,
    Plan,
    ResizePolicy,
    plan,
)

WHOLE = (0, 0, 0, 0)
"""The `roi` that stands for the whole frame."""


class Fit(NamedTuple):
    """How a model wants pictures to be fitted to its input."""

    resize: ResizePolicy = "stretch"
    """What the resize policy `auto` means."""
    crop_share: float = CROP_SHARE
    """Share of the short side that `crop` cuts out, above 0.0, at most 1.0."""


USUAL = Fit()


@dataclass(frozen=True)
class View:
    """A region of each frame, a resize policy and the color range of the camera's YUV.

    Raises:
        ParameterError: a value is not among its choices.

    """

    roi: Sequence[int] = WHOLE
    """x, y, width, height in pixels, cut at the frame's edge; zeros: the whole frame."""
    resize: ResizePolicy | Literal["auto"] = "auto"
    """auto: as the model was trained, if its file says so, else stretched."""
    source_color_range: ColorRange = "limited"
    """BT.601 range of YUV frames; others have none."""
    interpolation: Interpolation = "antialiased"
    """bilinear: the pixels of the model zoo's samples."""

    def __post_init__(self) -> None:
        roi = tuple(self.roi)
        object.__setattr__(self, "roi", roi)
        if len(roi) != 4 or min(roi) < 0 or (any(roi) and not all(roi[2:])):
            raise ParameterError(
                f"roi cannot be {list(roi)}: give x, y, width, height in pixels, or four zeros for "
                "the whole frame"
            )
        if self.resize not in ("auto", *RESIZE_POLICIES):
            raise ParameterError(
                f"resize cannot be '{self.resize}': choose one of auto, {', '.join(RESIZE_POLICIES)}"
            )
        if self.source_color_range not in COLOR_RANGES:
            raise ParameterError(
                f"source_color_range cannot be '{self.source_color_range}': choose one of "
                f"{', '.join(COLOR_RANGES)}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ParameterError(
                f"interpolation cannot be '{self.interpolation}': choose one of "
                f"{', '.join(INTERPOLATIONS)}"
            )

    def crop(self, frame: Frame) -> Frame:
        """Return the region of interest, not copied.

        Raises:
            FrameError: the region lies outside the frame.

        """
        return frame.crop(*self.roi) if any(self.roi) else frame

    def policy(self, auto: ResizePolicy) -> ResizePolicy:
        """Return how frames are fitted to the input of a model for which `auto` means this policy."""
        return auto if self.resize == "auto" else self.resize

    def plan(
        self,
        frame: Frame,
        nv12: np.ndarray,
        color_range: ColorRange = "full",
        fit: Fit = USUAL,
    ) -> Plan:
        """Return how a frame that `crop` returned becomes the model's input.

        Args:
            frame: any encoding, any size.
            nv12: uint8 (height * 3 // 2, width) to fill.
            color_range: of `nv12`.
            fit: what the model wants.

        Raises:
            FrameError: a Bayer frame smaller than one cell, or a JPEG that cannot be decoded.

        """
        return plan(
            frame,
            nv12,
            resize=self.policy(fit.resize),
            color_range=color_range,
            source_color_range=self.source_color_range,
            interpolation=self.interpolation,
            crop_share=fit.crop_share,
        )
