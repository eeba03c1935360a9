# SPDX-License-Identifier: Apache-2.0
"""The compiled helper: what most frames need, from DDS through libdnn to DDS, in C.

setup.py builds it where there is a C compiler. Without it, and for frames that it does not take, Python
does the same; test/test_native.py and test/test_rcl.py compare the two.

| C                | in Python                           | runs                                        |
| ---------------- | ----------------------------------- | ------------------------------------------- |
| repghost_run     | Slot.run, LibdnnSlot.infer_batch    | libdnn, always                              |
| repghost_convert | from_message, View.plan, Plan.run   | by repghost_run, for a serialized message   |
|                  |                                     | whose fields, length of data and view are   |
|                  |                                     | those of one that Python has converted      |
| repghost_rank    | Reporting.best                      | by repghost_run, for up to MOST_CLASSES of  |
|                  |                                     | a softmax without temperature or lists      |
| repghost_publish | serialized_classification, publish  | the node, where the classes were ranked in  |
|                  | (ros/messages.py, ros/rcl.py)       | C and the image is in little-endian CDR     |
| repghost_scale   | Scaling (vision/scaling.py)         | every frame that is converted               |
| repghost_relevel | Scaling                             | by repghost_convert, for planes of the      |
|                  |                                     | model's own size                            |
| repghost_receive | MessageTaker (ros/rcl.py)           | the node, always                            |

Only vision/scaling.py, backends/libdnn.py and ros/rcl.py call it. Calls go through ctypes and leave
Python's lock free.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator, Sequence
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_float,
    c_int16,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    sizeof,
)
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)
_NAME = "compiled"  # as in setup.py
_INTERFACE = 6
MOST_CLASSES = 16
"""How many classes of a frame it ranks."""


class Best(Structure):
    """struct repghost_best: iterates over the index and probability of the best classes."""

    _fields_ = (
        ("count", c_int32),
        ("index", c_int32 * MOST_CLASSES),
        ("score", c_double * MOST_CLASSES),
    )

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.index[: self.count], self.score[: self.count])


class Pass(Structure):
    """struct repghost_pass; see `pass_type`."""

    _fields_ = (
        ("message", c_void_p),
        ("length", c_uint64),
        ("conversions", c_void_p),
        ("nv12", c_void_p),
        ("converted", c_double),
        ("inferred", c_double),
        ("threshold", c_double),
        ("number", c_int32),
        ("wanted", c_int32),
        ("best", Best),
    )
    logits: ctypes.Array[c_float]

    def read_logits(self) -> np.ndarray:
        """Return the logits in its memory, float32 (classes,)."""
        memory: Any = self
        return np.frombuffer(memory, np.float32, len(self.logits), sizeof(Pass))


@lru_cache
def pass_type(classes: int) -> type[Pass]:
    """Return a Pass with room for this many logits."""
    fields = {"_fields_": (("logits", c_float * classes),)}
    return type(f"Pass{classes}", (Pass,), fields)


class Receiver(Structure):
    """struct repghost_receiver."""

    _fields_ = (
        *((name, c_void_p) for name in ("wait", "clear", "add_subscription", "add_guard", "take")),
        *((name, c_void_p) for name in ("set", "guard", "subscriptions")),
        *((name, c_int32) for name in ("count", "turn", "unasked", "status", "wake")),
    )


class Labels(Structure):
    """struct repghost_labels: the names of all classes in UTF-8, one after the other.

    Args:
        labels: in index order.

    """

    _fields_ = (("texts", c_char_p), ("ends", POINTER(c_uint32)), ("count", c_int32))

    def __init__(self, labels: Sequence[str]) -> None:
        texts = [label.encode() for label in labels]
        ends = np.cumsum([len(text) for text in texts]).tolist()
        super().__init__(b"".join(texts), (c_uint32 * len(ends))(*ends), len(ends))


ROWS = 4
"""Rows that make one."""
LANES = 4
"""Values of a point."""
LUMA, CHROMA, HALVED_CHROMA = 1, 2, 4
"""What a Scaling makes."""


class Axis(Structure):
    """struct repghost_axis."""

    _fields_ = (
        *((name, c_void_p) for name in ("index", "weights")),
        *((name, c_int32) for name in ("size", "points", "taps")),
    )


class Scaling(Structure):
    """struct repghost_scaling."""

    _fields_ = (
        *((name, Axis) for name in ("rows", "columns")),
        ("gains", c_int32 * 5 * 3),
        *((name, c_int32) for name in ("makes", "lines", "lanes", "bytes")),
    )


PARTS = 2
"""Parts of a Conversion, at most."""


class Part(Structure):
    """struct repghost_part."""

    _fields_ = (
        ("scaling", c_void_p),
        ("planes", c_void_p * 2),
        *((name, c_int64 * 2) for name in ("offsets", "steps")),
        *((name, c_int64) for name in ("y", "uv")),
        ("factor", c_uint16),
        ("added", c_int16),
    )


class Jpeg(Structure):
    """struct repghost_jpeg."""

    _fields_ = (
        *((name, c_void_p) for name in ("open", "close", "read_header", "decode")),
        ("frame", c_char_p),
        *((name, c_uint64) for name in ("frame_size", "interval")),
        ("planes", c_void_p * 3),
        *((name, c_int32) for name in ("width", "height", "sampling", "colors")),
        *((name, c_int32) for name in ("decoded_width", "decoded_height")),
        ("restarts", c_uint32),
    )


class Conversion(Structure):
    """struct repghost_conversion."""

    _fields_ = (
        ("next", c_void_p),
        ("fields", c_char_p),
        ("fields_size", c_uint64),
        ("jpeg", POINTER(Jpeg)),
        ("parts", Part * PARTS),
        ("stride", c_int64),
        ("height", c_int32),
        *((name, c_uint32) for name in ("step", "size")),
        *((name, c_int32) for name in ("count", "black", "gray")),
    )


_STRUCTURES: tuple[type[Structure], ...] = (
    *(Best, Pass, Receiver, Labels, Scaling),
    *(Conversion, Jpeg),
)
_LAYOUT = [_INTERFACE, *(sizeof(structure) for structure in _STRUCTURES)]
_ARGUMENTS = {
    "repghost_run": (c_void_p, c_void_p, c_int32),
    "repghost_rank": (c_void_p, c_int32, c_int32, c_double, c_void_p, c_void_p),
    "repghost_receive": (c_void_p, c_void_p, c_int64),
    "repghost_publish": (c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p),
    "repghost_scale": (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int64),
    "repghost_relevel": (c_void_p, c_void_p, c_uint16, c_int16, c_size_t),
    "repghost_serialize": (c_void_p, c_size_t, c_void_p, c_void_p, c_void_p, c_size_t),
}


def program(fields: Sequence[tuple[str, Any, Any]]) -> Structure:
    """Return a struct repghost_program.

    Args:
        fields: name, type and value of all of them, in the order of native.h.

    """
    layout = {"_fields_": tuple((name, kind) for name, kind, _ in fields)}
    made: type[Structure] = type("Program", (Structure,), layout)
    size = c_int32.in_dll(library(), "repghost_program_size").value  # type: ignore[arg-type]
    assert sizeof(made) == size, "the fields are not those of native.h"
    return made(*(value for _, _, value in fields))


@lru_cache
def library() -> ctypes.CDLL | None:
    """Return the compiled helper, None where it was not built or REPGHOST_NATIVE is 0."""
    if os.environ.get("REPGHOST_NATIVE") == "0":
        return None
    here = Path(__file__).parent
    path = next((p for s in EXTENSION_SUFFIXES if (p := here / f"{_NAME}{s}").is_file()), None)
    if path is None:
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        layout = list((c_int32 * len(_LAYOUT)).in_dll(loaded, "repghost_layout"))
    except (OSError, ValueError) as error:
        _log.warning("the compiled helper cannot be loaded, Python does its work: %s", error)
        return None
    if layout != _LAYOUT:
        _log.warning("the compiled helper is of another version, Python does its work: %s", path)
        return None
    for name, types in _ARGUMENTS.items():
        getattr(loaded, name).argtypes = types
    loaded.repghost_rank.restype = loaded.repghost_relevel.restype = None
    loaded.repghost_serialize.restype = c_size_t
    return loaded
