# SPDX-License-Identifier: Apache-2.0
"""The conversions that the compiled helper repeats.

Python reads, checks and converts the first message of a kind. What follows from its fields alone is the
same for every message with the same fields, so native/convert.c compares them and repeats the steps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

import repghost_ros.native as native
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import Plan

_MOST = 32
"""Conversions that are kept; more come of a driver whose fields change from frame to frame."""


@dataclass(frozen=True)
class Conversion:
    """A conversion, and those to try after it."""

    structure: native.Conversion
    kept: tuple[Any, ...]
    """What the structure points to."""

    @property
    def address(self) -> int:
        """Of the structure."""
        return ctypes.addressof(self.structure)


class Conversions:
    """Those of one slot."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Conversion] = {}
        self._known: set[Hashable] = set()

    def first(self, view: Hashable) -> Conversion | None:
        """Return the first conversion to try on a message.

        Args:
            view: all that a plan depends on beside the message.

        """
        return self._first.get(view)

    def learn(self, view: Hashable, message: Serialized, frame: Frame, plan: Plan) -> None:
        """Keep the conversion of a message, unless it is known or only Python can repeat it.

        Args:
            view: as for `first`.
            message: as it was read.
            frame: what was read.
            plan: how that was converted.

        """
        image: Any = message.message
        if message.compressed or frame.note:
            return
        key = (view, message.fields, image.step, len(image.data))
        parts = _parts(plan, np.frombuffer(image.data, np.uint8))
        if key in self._known or parts is None:
            return
        if len(self._known) == _MOST:
            self._first.clear()
            self._known.clear()
        following = self._first.get(view)
        structure = native.Conversion(
            next=following.address if following else None,
            fields=message.fields,
            fields_size=len(message.fields),
            parts=parts,
            stride=plan.y.strides[0],
            height=len(plan.y),
            step=image.step,
            size=len(image.data),
            count=len(plan.parts),
            black=-1 if plan.black is None else plan.black,
            gray=plan.gray,
        )
        scalings = tuple(part.scaling for part in plan.parts)
        self._first[view] = Conversion(structure, (following, scalings))
        self._known.add(key)


def _parts(plan: Plan, data: np.ndarray) -> Any:
    """Return a plan's parts in offsets from the data, None where they are not made of it."""
    start, end = data.ctypes.data, data.ctypes.data + data.size
    parts = (native.Part * native.PARTS)()
    for made, part in zip(parts, plan.parts, strict=False):
        made.scaling = part.scaling.address
        for i, line in enumerate(part.lines):
            first, step = line.ctypes.data, line.strides[0]
            if not start <= first <= first + (len(line) - 1) * step + line.shape[1] <= end:
                return None
            made.offsets[i], made.steps[i] = first - start, step
        made.y = part.y.ctypes.data - plan.y.ctypes.data
        made.uv = part.uv.ctypes.data - plan.y.ctypes.data
    return parts
