# SPDX-License-Identifier: Apache-2.0
"""The vendor's pyeasy_dnn on the emulated device, as version 3.0.6 was measured on it.

Nothing is ever released: no model, no buffer, no task that failed. Every call keeps Python's lock
and waits without a time limit. Errors come as a SystemError with an uninformative cause. Outputs are
raw: neither dequantized nor freed of padding, and a two-dimensional one may be empty. Only the first
of several models in a file is loaded. Neither type nor size of an input is checked.
"""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace
from typing import Any

import numpy as np

from repghost_ros.backends import hb_dnn

_DTYPES = {1: "uint8", 2: "uint8", 8: "int8", 11: "int16", 13: "float32", 14: "int32"}
_IMAGES = {1: "NV12", 2: "NV12_SEPARATE", 3: "YUV444"}


def _calls() -> Any:
    """Load the device's functions, called with Python's lock held."""
    path = os.environ.get("REPGHOST_LIBDNN", "libdnn.so")
    dnn = ctypes.PyDLL(path)
    for name, arguments in hb_dnn._SIGNATURES.items():
        getattr(dnn, name).argtypes = arguments
    return dnn


def _properties(raw: hb_dnn.Properties) -> Any:
    return SimpleNamespace(
        shape=tuple(raw.validShape.sizes()),
        dtype=_DTYPES.get(raw.tensorType, "uint8"),
        layout="NHWC" if raw.tensorLayout == 0 else "NCHW",
        tensor_type=_IMAGES.get(raw.tensorType, _DTYPES.get(raw.tensorType, "?")),
        scale_data=np.array(raw.scale.scaleData[: raw.scale.scaleLen], np.float32),
        validShape=ctypes.addressof(raw.validShape),
        alignedShape=ctypes.addressof(raw.alignedShape),
    )


class Model:
    """One model with one set of buffers."""

    def __init__(self, dnn: Any, handle: ctypes.c_void_p, name: str) -> None:
        self.name = name
        self._dnn = dnn
        self._handle = handle
        self._input, self._output = hb_dnn.Tensor(), hb_dnn.Tensor()
        counts = ctypes.c_int32(), ctypes.c_int32()
        dnn.hbDNNGetInputCount(ctypes.byref(counts[0]), handle)
        dnn.hbDNNGetOutputCount(ctypes.byref(counts[1]), handle)
        dnn.hbDNNGetInputTensorProperties(ctypes.byref(self._input.properties), handle, 0)
        dnn.hbDNNGetOutputTensorProperties(ctypes.byref(self._output.properties), handle, 0)
        image, logits = self._input.properties, self._output.properties
        self.inputs = [SimpleNamespace(name="data", properties=_properties(image))]
        self.inputs *= counts[0].value
        self.outputs = [SimpleNamespace(name="output", properties=_properties(logits))]
        self.outputs *= counts[1].value
        # It takes compact images and leaves the padding to libdnn.
        image.alignedShape = image.validShape
        rows, columns = (1, 2) if image.tensorLayout == 0 else (2, 3)
        sizes = image.validShape.dimensionSize
        luma = sizes[rows] * sizes[columns]
        planes = [luma, luma // 2] if image.tensorType == 2 else [luma * 3 // 2]
        for memory, size in zip(self._input.sysMem, planes):
            dnn.hbSysAllocCachedMem(ctypes.byref(memory), size)
        dnn.hbSysAllocCachedMem(ctypes.byref(self._output.sysMem[0]), logits.alignedByteSize)
        self._planes = len(planes)

    def forward(self, data: np.ndarray, core_id: int = 0, priority: int = 0) -> list[Any]:
        """One output whose `buffer` is what the device wrote."""
        try:
            self._run(np.ascontiguousarray(data).tobytes(), core_id, priority)
        except RuntimeError as error:
            raise SystemError(
                "<method 'forward' of 'dnnpy.Model' objects> returned a result with an exception set"
            ) from error
        logits = self._output.properties
        shape = logits.validShape.dimensionSize[:4]
        dtype = np.dtype(_DTYPES[logits.tensorType])
        size = int(np.prod(shape)) * dtype.itemsize
        raw = ctypes.string_at(self._output.sysMem[0].virAddr, size)
        buffer = np.frombuffer(raw, dtype).reshape(shape).copy()
        return [SimpleNamespace(name="output", properties=_properties(logits), buffer=buffer)]

    def _run(self, data: bytes, core_id: int, priority: int) -> None:
        dnn, begin = self._dnn, 0
        for memory in self._input.sysMem[: self._planes]:
            part = data[begin : begin + memory.memSize]
            ctypes.memmove(memory.virAddr, part, len(part))
            dnn.hbSysFlushMem(ctypes.byref(memory), 2)
            begin += memory.memSize
        task = ctypes.c_void_p()
        outputs = ctypes.pointer(self._output)
        control = hb_dnn.InferControl(bpuCoreId=core_id, priority=priority)
        image = ctypes.byref(self._input)
        status = dnn.hbDNNInfer(
            ctypes.byref(task), ctypes.byref(outputs), image, self._handle, ctypes.byref(control)
        )
        if status or dnn.hbDNNWaitTaskDone(task, 0):
            raise RuntimeError("forward execution failed.")
        dnn.hbSysFlushMem(ctypes.byref(self._output.sysMem[0]), 1)
        dnn.hbDNNReleaseTask(task)


def load(path: str) -> list[Model]:
    """Load the first model in a file."""
    dnn = _calls()
    packed, handle, count = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int32()
    names = ctypes.POINTER(ctypes.c_char_p)()
    files = (ctypes.c_char_p * 1)(os.fsencode(path))
    try:
        if dnn.hbDNNInitializeFromFiles(ctypes.byref(packed), files, 1):
            raise RuntimeError("hbDNNInitializeFromFiles failed")
    except RuntimeError as error:
        raise SystemError(
            "<built-in function load> returned a result with an exception set"
        ) from error
    dnn.hbDNNGetModelNameList(ctypes.byref(names), ctypes.byref(count), packed)
    dnn.hbDNNGetModelHandle(ctypes.byref(handle), packed, names[0])
    return [Model(dnn, handle, (names[0] or b"").decode())]
