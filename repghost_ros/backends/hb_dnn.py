# SPDX-License-Identifier: Apache-2.0
"""The vendor's C interface: structures and functions of hb_dnn.h and hb_sys.h, and how to load libdnn.

Of versions 1.22 to 1.24 on a 64-bit board (LP64).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_int64,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import lru_cache
from pathlib import Path
from typing import Any

from repghost_ros.backends.base import why_not
from repghost_ros.errors import BackendError

_PATHS = ("/usr/lib/libdnn.so", "/usr/hobot/lib/libdnn.so")
_DEPENDENCIES = "/usr/hobot/lib"
_BY_NAME = "libdnn.so"  # as the loader finds it, on LD_LIBRARY_PATH too
_INSTALL = "libdnn.so is not here: it comes with the board's image (apt install hobot-dnn)"
_DIMENSIONS = 8  # HB_DNN_TENSOR_MAX_DIMENSIONS


class SysMem(Structure):
    """hbSysMem."""

    _fields_ = (("phyAddr", c_uint64), ("virAddr", c_void_p), ("memSize", c_uint32))


class Shape(Structure):
    """hbDNNTensorShape."""

    _fields_ = (("dimensionSize", c_int32 * _DIMENSIONS), ("numDimensions", c_int32))

    def sizes(self) -> list[int]:
        """Return the dimensions in use."""
        return list(self.dimensionSize[: max(0, min(self.numDimensions, _DIMENSIONS))])


class Shift(Structure):
    """hbDNNQuantiShift."""

    _fields_ = (("shiftLen", c_int32), ("shiftData", POINTER(c_uint8)))


class Scale(Structure):
    """hbDNNQuantiScale."""

    _fields_ = (
        ("scaleLen", c_int32),
        ("scaleData", POINTER(c_float)),
        ("zeroPointLen", c_int32),
        ("zeroPointData", POINTER(c_int8)),
    )


class Properties(Structure):
    """hbDNNTensorProperties."""

    _fields_ = (
        ("validShape", Shape),
        ("alignedShape", Shape),
        ("tensorLayout", c_int32),
        ("tensorType", c_int32),
        ("shift", Shift),
        ("scale", Scale),
        ("quantiType", c_int32),
        ("quantizeAxis", c_int32),
        ("alignedByteSize", c_int32),
        ("stride", c_int32 * _DIMENSIONS),
    )


class Tensor(Structure):
    """hbDNNTensor."""

    _fields_ = (("sysMem", SysMem * 4), ("properties", Properties))


class InferControl(Structure):
    """hbDNNInferCtrlParam."""

    _fields_ = (
        ("bpuCoreId", c_int32),
        ("dspCoreId", c_int32),
        ("priority", c_int32),
        ("more", c_int32),
        ("customId", c_int64),
        ("reserved1", c_int32),
        ("reserved2", c_int32),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "hbDNNInitializeFromFiles": (POINTER(c_void_p), POINTER(c_char_p), c_int32),
    "hbDNNRelease": (c_void_p,),
    "hbDNNGetModelNameList": (POINTER(POINTER(c_char_p)), POINTER(c_int32), c_void_p),
    "hbDNNGetModelHandle": (POINTER(c_void_p), c_void_p, c_char_p),
    "hbDNNGetInputCount": (POINTER(c_int32), c_void_p),
    "hbDNNGetOutputCount": (POINTER(c_int32), c_void_p),
    "hbDNNGetInputTensorProperties": (POINTER(Properties), c_void_p, c_int32),
    "hbDNNGetOutputTensorProperties": (POINTER(Properties), c_void_p, c_int32),
    "hbDNNInfer": (
        POINTER(c_void_p),
        POINTER(POINTER(Tensor)),
        POINTER(Tensor),
        c_void_p,
        POINTER(InferControl),
    ),
    "hbDNNWaitTaskDone": (c_void_p, c_int32),
    "hbDNNReleaseTask": (c_void_p,),
    "hbSysAllocCachedMem": (POINTER(SysMem), c_uint32),
    "hbSysFlushMem": (POINTER(SysMem), c_int32),
    "hbSysFreeMem": (POINTER(SysMem),),
}


def check(dnn: ctypes.CDLL, status: int, what: str) -> None:
    """Raise a BackendError with the vendor's words unless `status` is 0."""
    if status:
        described = dnn.hbDNNGetErrorDesc(status)
        reason = described.decode(errors="replace") if described else "unknown error"
        raise BackendError(f"{what} ({reason}, {status})")


def available() -> str | None:
    """None where libdnn can be loaded, else why not and what to install."""
    return why_not(library)


def library() -> ctypes.CDLL:
    """Load libdnn: REPGHOST_LIBDNN, else the file in the board's image.

    Raises:
        BackendError: it is not installed, or one of its own libraries is missing.

    """
    return _load(os.environ.get("REPGHOST_LIBDNN", ""))


def version() -> str:
    """Return the library's own version, such as 1.24.5.

    Raises:
        BackendError: it is not usable here.

    """
    version: str = library().hbDNNGetVersion().decode(errors="replace")
    return version


@lru_cache
def _load(override: str) -> ctypes.CDLL:
    installed = (path for path in _PATHS if Path(path).is_file())
    path = override or next(installed, None) or ctypes.util.find_library("dnn")
    dnn = _load_by_name() if path is None else _load_file(path)
    for name, arguments in _SIGNATURES.items():
        try:
            function = getattr(dnn, name)
        except AttributeError as error:
            raise BackendError(
                f"'{path or _BY_NAME}' lacks {name}: it is not the libdnn of an RDK X5"
            ) from error
        function.argtypes = arguments
        function.restype = c_int32
    dnn.hbDNNGetVersion.restype = c_char_p
    dnn.hbDNNGetErrorDesc.argtypes = (c_int32,)
    dnn.hbDNNGetErrorDesc.restype = c_char_p
    return dnn


def _load_by_name() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(_BY_NAME)
    except OSError as error:
        raise BackendError(_INSTALL) from error


def _load_file(path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path)
    except OSError:
        return _load_with_dependencies(path)


def _load_with_dependencies(path: str) -> ctypes.CDLL:
    """Load libdnn where the linker does not look in the vendor's directory."""
    # They need each other in an order that is not told: repeat while one more comes in.
    waiting = sorted(Path(_DEPENDENCIES).glob("*.so*"))
    while waiting:
        failed = []
        for dependency in waiting:
            try:
                ctypes.CDLL(str(dependency), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                failed.append(dependency)
        if len(failed) == len(waiting):
            break
        waiting = failed
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise BackendError(f"libdnn cannot be loaded: {error}") from error
