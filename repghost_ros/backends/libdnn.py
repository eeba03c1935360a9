"""NV12 -> logits on the BPU through the vendor's C library, libdnn.

Calls through ctypes leave the GIL free, so every worker waits for its own task while the others convert
frames; NV12 is written straight into the memory the BPU reads. Structures and constants follow hb_dnn.h
and hb_sys.h of versions 1.22 to 1.24 on a 64-bit board (LP64).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_float,
    c_int8,
    c_int16,
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

import numpy as np

from repghost_ros.backends.base import DEFAULTS, BackendOptions, Runtime, image_size
from repghost_ros.errors import BackendError

_PATHS = ("/usr/lib/libdnn.so", "/usr/hobot/lib/libdnn.so")
_DEPENDENCIES = "/usr/hobot/lib"
_INSTALL = "libdnn.so is not here: it comes with the board's image (apt install hobot-dnn)"

_DIMENSIONS = 8  # HB_DNN_TENSOR_MAX_DIMENSIONS
_NHWC = 0
_NV12, _NV12_SEPARATE = 1, 2
_NO_QUANTIZATION, _SHIFT, _SCALE = 0, 1, 2
_ELEMENTS: dict[int, Any] = {8: c_int8, 11: c_int16, 13: c_float, 14: c_int32}  # S8 S16 F32 S32
_INVALIDATE, _CLEAN = 1, 2  # HB_SYS_MEM_CACHE_*


class SysMem(Structure):
    """hbSysMem."""

    _fields_ = (("phyAddr", c_uint64), ("virAddr", c_void_p), ("memSize", c_uint32))


class Shape(Structure):
    """hbDNNTensorShape."""

    _fields_ = (("dimensionSize", c_int32 * _DIMENSIONS), ("numDimensions", c_int32))

    def sizes(self) -> list[int]:
        """The dimensions in use."""
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


def available() -> str | None:
    """None where libdnn can be loaded, else why not and what to install."""
    try:
        library()
    except BackendError as error:
        return str(error)
    return None


def library() -> ctypes.CDLL:
    """The loaded libdnn: REPGHOST_LIBDNN, else where the board's image has it.

    Raises:
        BackendError: it is not installed, or one of its own libraries is missing.

    """
    return _load(os.environ.get("REPGHOST_LIBDNN", ""))


def version() -> str:
    """The library's own version, such as 1.24.5.

    Raises:
        BackendError: it is not usable here.

    """
    told: str = library().hbDNNGetVersion().decode(errors="replace")
    return told


@lru_cache
def _load(override: str) -> ctypes.CDLL:
    installed = (path for path in _PATHS if Path(path).is_file())
    path = override or next(installed, None) or ctypes.util.find_library("dnn")
    if path is None:
        raise BackendError(_INSTALL)
    try:
        dnn = ctypes.CDLL(path)
    except OSError:
        dnn = _load_with_dependencies(path)
    for name, arguments in _SIGNATURES.items():
        try:
            function = getattr(dnn, name)
        except AttributeError as error:
            raise BackendError(f"'{path}' lacks {name}: it is no libdnn of an RDK X5") from error
        function.argtypes = arguments
        function.restype = c_int32
    dnn.hbDNNGetVersion.restype = c_char_p
    dnn.hbDNNGetErrorDesc.argtypes = (c_int32,)
    dnn.hbDNNGetErrorDesc.restype = c_char_p
    return dnn


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


class LibdnnBackend:
    """A compiled model on the BPU.

    Args:
        path: the .bin file.
        options: `bpu_core`, `bpu_priority` and `timeout_s` are read.

    Raises:
        BackendError: libdnn is missing, or the file is missing, corrupt, or no NV12 classifier.

    """

    labels: tuple[str, ...] = ()  # compiled models carry none

    def __init__(self, path: Path, options: BackendOptions = DEFAULTS) -> None:
        if not path.is_file():
            raise BackendError(f"model file '{path}' does not exist")
        self.dnn = library()
        self.control = InferControl(bpuCoreId=options.bpu_core, priority=options.bpu_priority)
        self.timeout_ms = max(1, round(options.timeout_s * 1000))
        self.runtime = f"libdnn {version()}"
        self._lock = threading.Lock()
        self._slots = 0
        self._closed = False
        self._packed = c_void_p()
        files = (c_char_p * 1)(os.fsencode(path))
        self.check(
            self.dnn.hbDNNInitializeFromFiles(byref(self._packed), files, 1),
            f"'{path}' cannot be loaded; is it compiled for bayes-e?",
        )
        try:
            self._read_model(path)
        except BaseException:
            self.close()
            raise

    def _read_model(self, path: Path) -> None:
        names, count = POINTER(c_char_p)(), c_int32()
        status = self.dnn.hbDNNGetModelNameList(byref(names), byref(count), self._packed)
        self.check(status, f"the models in '{path}' cannot be listed")
        if count.value != 1:
            raise BackendError(f"'{path}' holds {count.value} models: expected one")
        self.handle = c_void_p()
        status = self.dnn.hbDNNGetModelHandle(byref(self.handle), self._packed, names[0])
        self.check(status, f"the model in '{path}' cannot be opened")
        for kind in ("Input", "Output"):
            get_count = getattr(self.dnn, f"hbDNNGet{kind}Count")
            self.check(get_count(byref(count), self.handle), f"'{path}' has no {kind} count")
            if count.value != 1:
                raise BackendError(f"'{path}' has {count.value} {kind.lower()}s: expected one")
        self.input, self.output = Properties(), Properties()
        status = self.dnn.hbDNNGetInputTensorProperties(byref(self.input), self.handle, 0)
        self.check(status, f"the input of '{path}' cannot be read")
        status = self.dnn.hbDNNGetOutputTensorProperties(byref(self.output), self.handle, 0)
        self.check(status, f"the output of '{path}' cannot be read")
        self._read_input(path)
        self._read_output(path)

    def _read_input(self, path: Path) -> None:
        kind, shape = self.input.tensorType, self.input.validShape.sizes()
        aligned = self.input.alignedShape.sizes()
        if kind not in (_NV12, _NV12_SEPARATE) or len(shape) != 4 or len(aligned) != 4:
            raise BackendError(
                f"the input of '{path}' has type {kind} and shape {shape}: expected NV12; compile "
                "the model with input_type_rt: nv12"
            )
        channels_last = self.input.tensorLayout == _NHWC
        self.width, self.height = image_size(path, shape, channels_last=channels_last)
        self.stride = aligned[2 if channels_last else 3]
        if self.stride < self.width:
            raise BackendError(f"the rows of '{path}' have {self.stride} of {self.width} pixels")
        needed = self.stride * self.height * 3 // 2
        self.input_bytes = max(needed, self.input.alignedByteSize)

    def _read_output(self, path: Path) -> None:
        shape, aligned = self.output.validShape.sizes(), self.output.alignedShape.sizes()
        wide = [axis for axis, size in enumerate(shape) if size > 1]
        if len(wide) != 1 or min(shape) < 1 or len(aligned) != len(shape) or min(aligned) < 1:
            raise BackendError(f"the output of '{path}' has shape {shape}: expected 1xCLASSESx1x1")
        axis = wide[0]
        self.classes = shape[axis]
        self.class_step = int(np.prod(aligned[axis + 1 :], dtype=np.int64))
        element = _ELEMENTS.get(self.output.tensorType)
        if element is None:
            raise BackendError(f"the output of '{path}' has type {self.output.tensorType}: unknown")
        self.element = element
        self.elements = self.class_step * (self.classes - 1) + 1
        if self.elements * ctypes.sizeof(element) > self.output.alignedByteSize:
            raise BackendError(
                f"the output of '{path}' has {self.output.alignedByteSize} bytes, too few for "
                f"{self.classes} classes: the file is corrupt"
            )
        self.factor, self.offset = self._quantization(path)

    def _quantization(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """float32 factor and offset, one or one a class: logit = (value - offset) * factor."""
        kind, scale, shift = self.output.quantiType, self.output.scale, self.output.shift
        none = np.zeros(1, np.float32)
        if kind == _NO_QUANTIZATION:
            return none + 1, none
        if kind == _SCALE:
            factor = self._table(path, scale.scaleData, scale.scaleLen)
            if not scale.zeroPointLen:
                return factor, none
            return factor, self._table(path, scale.zeroPointData, scale.zeroPointLen)
        if kind == _SHIFT:
            return np.exp2(-self._table(path, shift.shiftData, shift.shiftLen)), none
        raise BackendError(f"the output of '{path}' is quantized in an unknown way: {kind}")

    def _table(self, path: Path, data: Any, length: int) -> np.ndarray:
        if length not in (1, self.classes) or not data:
            raise BackendError(
                f"the output of '{path}' has {length} quantization factors for {self.classes} "
                "classes: the file is corrupt"
            )
        return np.ctypeslib.as_array(data, (length,)).astype(np.float32)

    def check(self, status: int, what: str) -> None:
        """Raise a BackendError with the vendor's words unless `status` is 0."""
        if status:
            described = self.dnn.hbDNNGetErrorDesc(status)
            reason = described.decode(errors="replace") if described else "unknown error"
            raise BackendError(f"{what} ({reason}, {status})")

    def open_slot(self) -> LibdnnSlot:
        """Allocate one worker's buffers in the BPU's memory."""
        with self._lock:
            if self._closed:
                raise BackendError("the model is closed")
            slot = LibdnnSlot(self)
            self._slots += 1
        return slot

    def slot_closed(self) -> None:
        """Count a slot out; the last one of a closed model releases it."""
        with self._lock:
            self._slots -= 1
            self._release()

    def close(self) -> None:
        """Release the model, at once or when its last slot is closed."""
        with self._lock:
            self._closed = True
            self._release()

    def _release(self) -> None:
        if self._closed and not self._slots and self._packed:
            self.dnn.hbDNNRelease(self._packed)
            self._packed = c_void_p()


class LibdnnSlot:
    """One worker's tensors; everything an inference needs is made once."""

    def __init__(self, backend: LibdnnBackend) -> None:
        self._backend = backend
        self._memory: list[SysMem] = []
        try:
            image = self._allocate(backend.input_bytes)
            logits = self._allocate(backend.output.alignedByteSize)
        except BackendError:
            self._free()
            raise
        rows = backend.height * 3 // 2
        pixels = (c_uint8 * (rows * backend.stride)).from_address(image.virAddr)
        whole = np.frombuffer(pixels, np.uint8).reshape(rows, backend.stride)
        whole[...] = 128
        self.nv12: np.ndarray = whole[:, : backend.width]
        values = (backend.element * backend.elements).from_address(logits.virAddr)
        self._values = np.ctypeslib.as_array(values)[:: backend.class_step]
        self._input = Tensor(properties=backend.input)
        self._input.sysMem[0] = image
        if backend.input.tensorType == _NV12_SEPARATE:
            # Both planes lie in one allocation, so that frames are written as one buffer.
            luma = backend.height * backend.stride
            self._input.sysMem[0].memSize = luma
            self._input.sysMem[1] = SysMem(image.phyAddr + luma, image.virAddr + luma, luma // 2)
        self._output = Tensor(properties=backend.output)
        self._output.sysMem[0] = logits
        self._outputs = POINTER(Tensor)(self._output)
        self._image = byref(image)
        self._logits = byref(logits)

    def _allocate(self, size: int) -> SysMem:
        memory = SysMem()
        self._backend.check(
            self._backend.dnn.hbSysAllocCachedMem(byref(memory), size),
            f"the BPU has no {size} bytes for another worker",
        )
        self._memory.append(memory)
        return memory

    def infer(self) -> np.ndarray:
        """Run the model on `nv12` and wait: float32 (classes,).

        Raises:
            BackendError: the BPU refused, failed or timed out.

        """
        backend, dnn = self._backend, self._backend.dnn
        task = c_void_p()
        backend.check(dnn.hbSysFlushMem(self._image, _CLEAN), "the frame cannot be flushed")
        status = dnn.hbDNNInfer(
            byref(task),
            byref(self._outputs),
            byref(self._input),
            backend.handle,
            byref(backend.control),
        )
        backend.check(status, "the BPU refused the inference")
        status = dnn.hbDNNWaitTaskDone(task, backend.timeout_ms)
        dnn.hbDNNReleaseTask(task)
        backend.check(status, f"the BPU did not finish within {backend.timeout_ms} ms")
        backend.check(dnn.hbSysFlushMem(self._logits, _INVALIDATE), "the answer cannot be read")
        logits: np.ndarray = (self._values - backend.offset) * backend.factor
        return logits

    def close(self) -> None:
        """Free the buffers; further calls do nothing."""
        if self._memory:
            self._free()
            self._backend.slot_closed()

    def _free(self) -> None:
        for memory in self._memory:
            self._backend.dnn.hbSysFreeMem(byref(memory))
        self._memory = []


RUNTIME = Runtime("libdnn", "bpu", (".bin", ".hbm"), available, version, LibdnnBackend)
