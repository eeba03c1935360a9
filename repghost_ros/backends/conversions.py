# SPDX-License-Identifier: Apache-2.0
"""The conversions that the compiled helper repeats.

Python reads, checks and converts the first message of a kind. What follows from its fields alone is the
same for every message with the same fields, so native/convert.c compares them and repeats the steps. Of
a JPEG the fields are those that give its size, sampling and restart markers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable
from ctypes import addressof, c_void_p, cast
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np

import repghost_ros.native as native
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.cdr import ImageView, Serialized
from repghost_ros.vision.frame import YCBCR, Frame, JpegFrame
from repghost_ros.vision.nv12 import Part, Plan
from repghost_ros.vision.scaling import COLUMN_ONE, Scaling

_MOST = 32
"""Conversions that are kept; more come of a driver whose fields change from frame to frame."""
_MOST_BYTES = 32 << 20
"""For planes of JPEGs."""


@dataclass(frozen=True)
class Conversion:
    """A conversion, and those to try after it."""

    structure: native.Conversion
    kept: tuple[Any, ...]
    """What the structure points to."""
    address: int = field(init=False)
    """Of the structure."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", addressof(self.structure))


class Conversions:
    """Those of one slot."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Conversion] = {}
        self._known: set[Hashable] = set()
        self._bytes = 0
        """Of the planes into which JPEGs are decoded."""

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
        image = message.message
        key: tuple[Hashable, ...] = (view, message.fields)
        describe: Callable[[Plan], dict[str, Any] | None]
        if isinstance(frame, JpegFrame):
            describe = partial(_of_jpeg, frame)
            key += (frame.header.frame_header, frame.header.interval)
        elif isinstance(image, ImageView):
            describe = partial(_of_data, image)
            key += (image.step, len(image.data))
        else:
            return
        if frame.note or key in self._known:
            return
        size = sum(plane.nbytes for plane in plan.frame.whole)
        if len(self._known) == _MOST or self._bytes + size > _MOST_BYTES:
            self._first.clear()
            self._known.clear()
            self._bytes = 0
        self._known.add(key)
        self._bytes += size
        of_source = describe(plan)
        if of_source is None:
            return
        following = self._first.get(view)
        structure = native.Conversion(
            next=following.address if following else None,
            fields=message.fields,
            fields_size=len(message.fields),
            stride=plan.y.strides[0],
            height=len(plan.y),
            count=len(plan.parts),
            black=-1 if plan.black is None else plan.black,
            gray=plan.gray,
            **of_source,
        )
        scalings = tuple(part.scaling for part in plan.parts)
        kept = (following, scalings, plan.frame.whole)
        self._first[view] = Conversion(structure, kept)


def _of_data(image: ImageView, plan: Plan) -> dict[str, Any] | None:
    """Return the fields of a conversion from an image's data; None where the frame lies elsewhere."""
    data = np.frombuffer(image.data, np.uint8)
    start = data.ctypes.data
    ends = [_extent(line) for part in plan.parts for line in part.lines]
    if any(first < start or last > start + data.size for first, last in ends):
        return None
    parts = (native.Part * native.PARTS)()
    for made, part in zip(parts, plan.parts, strict=False):
        _describe(made, part, plan)
        made.offsets[: len(part.lines)] = [line.ctypes.data - start for line in part.lines]
    return {"parts": parts, "step": image.step, "size": data.size}


def _extent(line: np.ndarray) -> tuple[int, int]:
    """Return the addresses of the first byte and behind the last one."""
    first = line.ctypes.data
    return first, first + (len(line) - 1) * line.strides[0] + line.shape[1]


def _of_jpeg(frame: JpegFrame, plan: Plan) -> dict[str, Any] | None:
    """Return the fields of a conversion from a JPEG; None where libturbojpeg gives no planes of it."""
    turbo, header = turbojpeg.library(), turbojpeg.read_header(frame.data)
    planes = plan.frame.whole
    if turbo is None or header is None or not (plan.frame.encoding == YCBCR or planes[0].ndim == 2):
        return None
    parts = (native.Part * native.PARTS)()
    for made, part in zip(parts, plan.parts, strict=False):
        _describe(made, part, plan)
        made.planes[: len(part.lines)] = [line.ctypes.data for line in part.lines]
    functions = {
        "open": turbo.tjInitDecompress,
        "close": turbo.tjDestroy,
        "read_header": turbo.tjDecompressHeader3,
        "decode": turbo.tjDecompressToYUVPlanes,
    }
    decoded_height, decoded_width = planes[0].shape
    described = native.Jpeg(
        **{name: cast(function, c_void_p) for name, function in functions.items()},
        frame=frame.header.frame_header,
        frame_size=len(frame.header.frame_header),
        interval=frame.header.interval,
        restarts=max(0, frame.header.intervals - 1),
        decoded_width=decoded_width,
        decoded_height=decoded_height,
        **header._asdict(),
    )
    described.planes[: len(planes)] = [plane.ctypes.data for plane in planes]
    return {"parts": parts, "jpeg": ctypes.pointer(described)}


def _describe(made: native.Part, part: Part, plan: Plan) -> None:
    """Fill in all but where its rows come from."""
    made.scaling = part.scaling.address
    made.steps[: len(part.lines)] = [line.strides[0] for line in part.lines]
    made.y = part.y.ctypes.data - plan.y.ctypes.data
    made.uv = part.uv.ctypes.data - plan.y.ctypes.data
    made.factor, made.added = _levels(part.scaling) or (0, 0)


def _levels(scaling: Scaling) -> tuple[int, int] | None:
    """Return the numbers for repghost_relevel; None where more than levels change."""
    axes = (*scaling.rows, *scaling.columns)
    lanes = len(scaling.columns)
    if len(scaling.rows) > 1 or scaling.pixel != lanes or any(each.taps > 1 for each in axes):
        return None
    gains = scaling.gains[:1] if scaling.luma else scaling.gains[1:]
    # Each byte of a pixel makes its own one, by the same rule.
    gain, added = gains[0][0], gains[0][-1]
    own = tuple((*(gain * (i == n) for i in range(lanes)), added) for n in range(lanes))
    return _in_16_bits(gain, added // COLUMN_ONE) if gains == own else None


@lru_cache
def _in_16_bits(gain: int, added: int) -> tuple[int, int] | None:
    """Return the factor and addend of repghost_relevel that do to all levels what 65536ths do."""
    levels = np.arange(256)
    wanted = np.clip(levels * gain + added >> 16, 0, 255)
    for factor, more in product(range(gain // 4 - 2, gain // 4 + 3), range(-2, 3)):
        short = added // 1024 + more
        if np.array_equal(np.clip((levels * factor >> 8) + short >> 6, 0, 255), wanted):
            return factor, short
    return None
