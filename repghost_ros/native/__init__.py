# SPDX-License-Identifier: Apache-2.0
"""The compiled helper: what each frame needs, from DDS through libdnn to DDS, in C.

setup.py builds it where there is a C compiler. Without it everything works the same in Python, which
takes 1.7 times the processor time (docs/performance.md). It takes over only what is the same for most
frames: to wait for messages and take them, to copy NV12 of the model's size, to call libdnn, to find
the best classes, and to serialize and publish them. Whatever is different goes through Python, which
is also what the tests compare it with.

Calls go through ctypes and leave Python's lock free. The structures below are those of the C files.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import lru_cache, partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)
_NAME = "compiled"  # as in setup.py
_INTERFACE = 1
MOST_CLASSES = 16
"""How many classes of a frame it names."""


class Frame(Structure):
    """struct repghost_frame: the request and the answer of one frame; see `frame_type`."""

    _fields_ = (
        ("message", c_void_p),
        ("length", c_uint64),
        ("converted", c_double),
        ("inferred", c_double),
        ("threshold", c_double),
        ("wanted", c_int32),
        ("named", c_int32),
        ("index", c_int32 * MOST_CLASSES),
        ("score", c_double * MOST_CLASSES),
    )
    logits: ctypes.Array[c_float]

    def read_logits(self) -> np.ndarray:
        """The logits in its memory, float32 (classes,)."""
        memory: Any = self
        return np.frombuffer(memory, np.float32, len(self.logits), ctypes.sizeof(Frame))

    def best(self) -> list[tuple[int, float]]:
        """Index and probability of the classes that it named, best first."""
        return list(zip(self.index[: self.named], self.score[: self.named]))


_INDEX, _SCORE = (getattr(Frame, name).offset for name in ("index", "score"))


class Program(Structure):
    """struct repghost_program."""

    _fields_ = (
        *((name, c_void_p) for name in ("flush", "infer", "wait", "release")),
        *((name, c_void_p) for name in ("model", "control", "outputs", "answer")),
        *((name, c_void_p) for name in ("inputs", "images", "nv12", "values")),
        *((name, c_void_p) for name in ("factors", "offsets", "scores")),
        *((name, c_int64) for name in ("image_step", "class_step")),
        *((name, c_int32) for name in ("batch", "timeout_ms", "width", "height", "stride")),
        *((name, c_int32) for name in ("classes", "element", "one_factor", "one_offset")),
        ("status", c_int32),
    )


class Receiver(Structure):
    """struct repghost_receiver."""

    _fields_ = (
        *((name, c_void_p) for name in ("wait", "clear", "add_subscription", "add_guard", "take")),
        *((name, c_void_p) for name in ("set", "guard", "subscriptions")),
        *((name, c_int32) for name in ("count", "turn", "untold", "status")),
        ("due", c_void_p),
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


class Semaphore:
    """Lets one thread wait for another, which may leave the waking to `repghost_receive`."""

    def __init__(self) -> None:
        helper = library()
        if helper is None:
            self.address = None
            lock = threading.Lock()
            lock.acquire()
            self.acquire: Callable[[], object] = lock.acquire
            self.release: Callable[[], object] = lock.release
        else:
            self.address = helper.repghost_make_semaphore()
            self.acquire = partial(helper.repghost_acquire, self.address)
            self.release = partial(helper.repghost_release, self.address)
            freed: Any = weakref.finalize(self, helper.repghost_free_semaphore, self.address)
            freed.atexit = False  # daemon threads may still wait on it then


@lru_cache
def frame_type(classes: int) -> type[Frame]:
    """A Frame with room for this many logits."""
    fields = {"_fields_": (("logits", c_float * classes),)}
    return type(f"Frame{classes}", (Frame,), fields)


def best(logits: np.ndarray, wanted: int, threshold: float) -> list[tuple[int, float]] | None:
    """Index and probability of the best classes of finite float32 (classes,) logits, best first.

    Returns:
        None where the helper is missing, or there is anything else in the way.

    """
    helper = library()
    fits = logits.dtype == np.float32 and logits.flags.c_contiguous and wanted <= MOST_CLASSES
    if helper is None or not fits:
        return None
    frame, scores = Frame(), np.empty(logits.size)
    place = ctypes.addressof(frame)
    frame.named = helper.repghost_best(
        logits.ctypes.data,
        logits.size,
        wanted,
        threshold,
        place + _INDEX,
        place + _SCORE,
        scores.ctypes.data,
    )
    return frame.best() if frame.named >= 0 else None


@lru_cache
def library() -> ctypes.CDLL | None:
    """The compiled helper, None where it was not built or REPGHOST_NATIVE is 0."""
    if os.environ.get("REPGHOST_NATIVE") == "0":
        return None
    here = Path(__file__).parent
    path = next((p for s in EXTENSION_SUFFIXES if (p := here / f"{_NAME}{s}").is_file()), None)
    if path is None:
        return None
    try:
        loaded = ctypes.CDLL(str(path))
        interface = loaded.repghost_interface()
    except (OSError, AttributeError) as error:
        _log.warning("the compiled helper cannot be loaded, Python does its work: %s", error)
        return None
    if interface != _INTERFACE:
        _log.warning("the compiled helper is of another version, Python does its work: %s", path)
        return None
    arguments = {
        "repghost_run": (c_void_p, c_void_p, c_int32),
        "repghost_best": (c_void_p, c_int32, c_int32, c_double, c_void_p, c_void_p, c_void_p),
        "repghost_receive": (c_void_p, c_void_p, c_int64),
        "repghost_publish": (c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p),
        "repghost_serialize": (c_void_p, c_size_t, c_void_p, c_void_p, c_void_p, c_size_t),
    }
    for name, types in arguments.items():
        getattr(loaded, name).argtypes = types
    for name in ("repghost_acquire", "repghost_release", "repghost_free_semaphore"):
        getattr(loaded, name).argtypes = (c_void_p,)
    loaded.repghost_make_semaphore.restype = c_void_p
    loaded.repghost_serialize.restype = c_size_t
    return loaded
