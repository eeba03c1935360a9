# SPDX-License-Identifier: Apache-2.0
"""NV12 -> logits on the BPU through the vendor's C library, libdnn.

Calls through ctypes leave the GIL free, so every worker waits for its own task while the others convert
frames; NV12 is written straight into the memory the BPU reads.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Sequence
from ctypes import (
    POINTER,
    addressof,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int8,
    c_int16,
    c_int32,
    c_int64,
    c_uint8,
    c_void_p,
    cast,
)
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic

import numpy as np

import repghost_ros.native as native
from repghost_ros.backends.base import (
    DEFAULTS,
    AnyQuery,
    BackendOptions,
    Failed,
    Inferred,
    Refused,
    Runtime,
    Slot,
    Times,
    convert,
    image_size,
    unconverted,
)
from repghost_ros.backends.conversions import Conversion, Conversions
from repghost_ros.backends.hb_dnn import (
    InferControl,
    Properties,
    SysMem,
    Tensor,
    available,
    check,
    library,
    version,
)
from repghost_ros.errors import BackendError
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import ColorRange
from repghost_ros.vision.view import USUAL, Fit
from repghost_ros.zoo.binary import look_at
from repghost_ros.zoo.model_file import ModelFile

_NHWC = 0
_NV12, _NV12_SEPARATE = 1, 2
_NO_QUANTIZATION, _SHIFT, _SCALE = 0, 1, 2
_ELEMENTS: dict[int, Any] = {8: c_int8, 11: c_int16, 13: c_float, 14: c_int32}  # S8 S16 F32 S32
_MAX_BATCH = 256  # more is no batch but a corrupt file
_INVALIDATE, _CLEAN = 1, 2  # HB_SYS_MEM_CACHE_*


class Step(IntEnum):
    """The steps of an inference, as native/infer.c counts them."""

    FLUSHING = 1
    SUBMITTING = 2
    WAITING = 3
    INVALIDATING = 4


_FAILED = {
    Step.FLUSHING: "the frame cannot be flushed",
    Step.SUBMITTING: "the BPU refused the inference",
    Step.WAITING: "the BPU did not finish within {} ms",
    Step.INVALIDATING: "the answer cannot be read",
}


class Program:
    """One of the models in a compiled file: what its input and output look like.

    Args:
        dnn: the library.
        handle: the model's.
        name: the model's.
        path: of its file, for messages.

    Raises:
        BackendError: it is no NV12 classifier, or its properties contradict each other.

    """

    def __init__(self, dnn: ctypes.CDLL, handle: c_void_p, name: str, path: Path) -> None:
        self.handle = handle
        self.name = name
        self._path = path
        count = c_int32()
        for kind in ("Input", "Output"):
            get_count = getattr(dnn, f"hbDNNGet{kind}Count")
            check(dnn, get_count(byref(count), handle), f"'{path}' has no {kind} count")
            if count.value != 1:
                raise BackendError(f"'{path}' has {count.value} {kind.lower()}s: expected one")
        self.input, self.output = Properties(), Properties()
        status = dnn.hbDNNGetInputTensorProperties(byref(self.input), handle, 0)
        check(dnn, status, f"the input of '{path}' cannot be read")
        status = dnn.hbDNNGetOutputTensorProperties(byref(self.output), handle, 0)
        check(dnn, status, f"the output of '{path}' cannot be read")
        self._read_input()
        self._read_output()

    def _read_input(self) -> None:
        kind, shape = self.input.tensorType, self.input.validShape.sizes()
        aligned = self.input.alignedShape.sizes()
        if kind not in (_NV12, _NV12_SEPARATE) or len(shape) != 4 or len(aligned) != 4:
            raise BackendError(
                f"the input of '{self._path}' has type {kind} and shape {shape}: expected NV12; "
                "compile the model with input_type_rt: nv12"
            )
        channels_last = self.input.tensorLayout == _NHWC
        self.batch = shape[0]
        if not 1 <= self.batch <= _MAX_BATCH or aligned[0] != self.batch:
            raise BackendError(
                f"the input of '{self._path}' has shape {shape}: what batch is that?"
            )
        size = image_size(self._path, [1, *shape[1:]], channels_last=channels_last)
        self.width, self.height = size
        self.stride = aligned[2 if channels_last else 3]
        if self.stride < self.width:
            raise BackendError(
                f"the rows of '{self._path}' have {self.stride} of {self.width} pixels"
            )
        # The images of a batch are given as a tensor each: see hbDNNInfer in the vendor's manual.
        self.input.validShape.dimensionSize[0] = self.input.alignedShape.dimensionSize[0] = 1
        self.input.alignedByteSize //= self.batch
        self.input_bytes = max(self.stride * self.height * 3 // 2, self.input.alignedByteSize)

    def _read_output(self) -> None:
        path = self._path
        shape, aligned = self.output.validShape.sizes(), self.output.alignedShape.sizes()
        wide = [axis for axis, size in enumerate(shape) if axis and size > 1]
        if len(wide) != 1 or min(shape) < 1 or len(aligned) != len(shape) or min(aligned) < 1:
            raise BackendError(f"the output of '{path}' has shape {shape}: expected 1xCLASSESx1x1")
        if shape[0] != self.batch:
            raise BackendError(f"'{path}' has {shape[0]} answers for {self.batch} images")
        axis = wide[0]
        self.classes = shape[axis]
        self.class_step = int(np.prod(aligned[axis + 1 :], dtype=np.int64))
        self.image_step = int(np.prod(aligned[1:], dtype=np.int64))
        element = _ELEMENTS.get(self.output.tensorType)
        if element is None:
            raise BackendError(f"the output of '{path}' has type {self.output.tensorType}: unknown")
        self.element = element
        last = (self.batch - 1) * self.image_step + (self.classes - 1) * self.class_step
        self.elements = last + 1
        if self.elements * ctypes.sizeof(element) > self.output.alignedByteSize:
            raise BackendError(
                f"the output of '{path}' has {self.output.alignedByteSize} bytes, too few for "
                f"{self.classes} classes: the file is corrupt"
            )
        self.factor, self.offset = self._quantization()

    def _quantization(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 factor and offset, one or one a class: logit = (value - offset) * factor."""
        kind, scale, shift = self.output.quantiType, self.output.scale, self.output.shift
        none = np.zeros(1, np.float32)
        if kind == _NO_QUANTIZATION:
            return none + 1, none
        if kind == _SCALE:
            factor = self._table(scale.scaleData, scale.scaleLen)
            if not scale.zeroPointLen:
                return factor, none
            return factor, self._table(scale.zeroPointData, scale.zeroPointLen)
        if kind == _SHIFT:
            return np.exp2(-self._table(shift.shiftData, shift.shiftLen)), none
        raise BackendError(f"the output of '{self._path}' is quantized in an unknown way: {kind}")

    def _table(self, data: Any, length: int) -> np.ndarray:
        if length not in (1, self.classes) or not data:
            raise BackendError(
                f"the output of '{self._path}' has {length} quantization factors for "
                f"{self.classes} classes: the file is corrupt"
            )
        return np.ctypeslib.as_array(data, (length,)).astype(np.float32)

    def describe(self) -> str:
        """Input and output as the library tells them, for a report."""
        image, logits = self.input, self.output
        strides = logits.stride[: logits.validShape.numDimensions]
        tables = {_SCALE: logits.scale.scaleLen, _SHIFT: logits.shift.shiftLen}
        return (
            f"'{self.name}', batch {self.batch}; input type {image.tensorType} layout "
            f"{image.tensorLayout} {image.validShape.sizes()} aligned {image.alignedShape.sizes()} "
            f"{image.alignedByteSize} bytes an image; output type {logits.tensorType} "
            f"{logits.validShape.sizes()} aligned {logits.alignedShape.sizes()} "
            f"{logits.alignedByteSize} bytes, strides {strides}, "
            f"quantization {logits.quantiType} with {tables.get(logits.quantiType, 0)} factors and "
            f"{logits.scale.zeroPointLen} zero points"
        )

    def logits(self, address: int) -> np.ndarray:
        """Return a view of the raw output in memory, shape (batch, classes)."""
        values = np.ctypeslib.as_array((self.element * self.elements).from_address(address))
        steps = (self.image_step * values.itemsize, self.class_step * values.itemsize)
        return np.lib.stride_tricks.as_strided(values, (self.batch, self.classes), steps)


class LibdnnBackend:
    """A compiled model on the BPU.

    A file may hold the model for several batch sizes: each inference takes the smallest that does.

    Args:
        path: the .bin file.
        options: `bpu_core`, `bpu_priority`, `timeout_s` and `model_name` are read.

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
        status = self.dnn.hbDNNInitializeFromFiles(byref(self._packed), files, 1)
        if status:
            self.check(status, f"'{path}' cannot be loaded: {look_at(path)}")
        try:
            self.programs = self._read_programs(path, options.model_name)
        except BaseException:
            self.close()
            raise
        largest = self.programs[-1]
        self.width, self.height, self.classes = largest.width, largest.height, largest.classes
        self.batch = largest.batch

    def _read_programs(self, path: Path, wanted: str) -> list[Program]:
        """Return the programs to run, by growing batch size."""
        names, count = POINTER(c_char_p)(), c_int32()
        status = self.dnn.hbDNNGetModelNameList(byref(names), byref(count), self._packed)
        self.check(status, f"the models in '{path}' cannot be listed")
        listed = [(names[i] or b"").decode(errors="replace") for i in range(count.value)]
        if not listed or (wanted and wanted not in listed):
            raise BackendError(
                f"'{path}' holds {len(listed)} models ({', '.join(listed)}), none named '{wanted}'"
            )
        programs = []
        for i, name in enumerate(listed):
            if wanted in ("", name):
                handle = c_void_p()
                status = self.dnn.hbDNNGetModelHandle(byref(handle), self._packed, names[i])
                self.check(status, f"the model '{name}' in '{path}' cannot be opened")
                programs.append(Program(self.dnn, handle, name, path))
        programs.sort(key=lambda program: program.batch)
        alike = {(p.width, p.height, p.stride, p.classes, p.input.tensorType) for p in programs}
        if len(alike) != 1 or len({program.batch for program in programs}) != len(programs):
            raise BackendError(
                f"'{path}' holds {len(listed)} models, which are not one for several batch sizes: "
                f"choose one of {', '.join(listed)} with model_name"
            )
        return programs

    def program_for(self, count: int) -> Program:
        """Return the program with the smallest batch that takes `count` images."""
        return next(program for program in self.programs if program.batch >= count)

    def check(self, status: int, what: str) -> None:
        """Raise a BackendError with the vendor's words unless `status` is 0."""
        check(self.dnn, status, what)

    def check_step(self, step: Step, status: int) -> None:
        """Raise a BackendError for a failed step of an inference unless `status` is 0."""
        if status:
            self.check(status, _FAILED[step].format(self.timeout_ms))

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


class LibdnnSlot(Slot):
    """One worker's tensors; everything an inference needs is made once.

    Frames are written into the same buffers whichever program takes them. Where the compiled helper is
    built, it converts frames, infers and ranks classes in one call.
    """

    def __init__(self, backend: LibdnnBackend) -> None:
        self.backend = backend
        self._memory: list[SysMem] = []
        largest = backend.programs[-1]
        input_bytes = max(program.input_bytes for program in backend.programs)
        output_bytes = max(program.output.alignedByteSize for program in backend.programs)
        try:
            self.images = [self._allocate(input_bytes) for _ in range(largest.batch)]
            self.answer = self._allocate(output_bytes)
        except BackendError:
            self._free()
            raise
        self.inputs = tuple(self._view(image, largest) for image in self.images)
        self._tasks = {program.batch: self._task(program) for program in backend.programs}
        self._helper = native.library()
        self._conversions = Conversions()
        if self._helper is not None:
            native_of = {each.batch: self._native_program(each) for each in backend.programs}
            self._native = [
                native_of[backend.program_for(1 + number).batch] for number in range(backend.batch)
            ]
            """By the number of the last input in use."""
            self._pass_type = native.pass_type(backend.classes)
            self._addresses = [view.ctypes.data for view in self.inputs]

    def _allocate(self, size: int) -> SysMem:
        memory = SysMem()
        self.backend.check(
            self.backend.dnn.hbSysAllocCachedMem(byref(memory), size),
            f"the BPU has no {size} bytes for another worker",
        )
        self._memory.append(memory)
        return memory

    @staticmethod
    def _view(image: SysMem, program: Program) -> np.ndarray:
        rows = program.height * 3 // 2
        pixels = (c_uint8 * (rows * program.stride)).from_address(image.virAddr)
        whole = np.frombuffer(pixels, np.uint8).reshape(rows, program.stride)
        whole[...] = 128
        return whole[:, : program.width]

    def _task(self, program: Program) -> tuple[Any, Any, np.ndarray]:
        """Return a program's input tensors, output tensor, and logits in memory."""
        images = (Tensor * program.batch)()
        for image, tensor in zip(self.images, images):
            tensor.properties = program.input
            tensor.sysMem[0] = image
            if program.input.tensorType == _NV12_SEPARATE:
                # Both planes lie in one allocation, so that frames are written as one buffer.
                luma = program.height * program.stride
                tensor.sysMem[0].memSize = luma
                tensor.sysMem[1] = SysMem(image.phyAddr + luma, image.virAddr + luma, luma // 2)
        output = Tensor(properties=program.output)
        output.sysMem[0] = self.answer
        return images, POINTER(Tensor)(output), program.logits(self.answer.virAddr)

    def infer_batch(self, count: int) -> np.ndarray:
        """Run the model on the first `count` of `inputs` and wait: float32 (count, classes).

        Raises:
            BackendError: the BPU refused, failed or timed out.

        """
        backend, dnn = self.backend, self.backend.dnn
        program = backend.program_for(count)
        images, outputs, values = self._tasks[program.batch]
        for image in self.images[: program.batch]:
            backend.check_step(Step.FLUSHING, dnn.hbSysFlushMem(byref(image), _CLEAN))
        task = c_void_p()
        status = dnn.hbDNNInfer(
            byref(task), byref(outputs), images, program.handle, byref(backend.control)
        )
        backend.check_step(Step.SUBMITTING, status)
        status = dnn.hbDNNWaitTaskDone(task, backend.timeout_ms)
        dnn.hbDNNReleaseTask(task)
        backend.check_step(Step.WAITING, status)
        status = dnn.hbSysFlushMem(byref(self.answer), _INVALIDATE)
        backend.check_step(Step.INVALIDATING, status)
        logits: np.ndarray = np.subtract(values[:count], program.offset, dtype=np.float32)
        logits *= program.factor
        return logits

    def run(
        self,
        batch: Sequence[AnyQuery],
        color_range: ColorRange,
        *,
        rank: bool,
        fit: Fit = USUAL,
    ) -> Iterator[Inferred[AnyQuery] | Refused[AnyQuery] | Failed[AnyQuery]]:
        """Read, convert and infer several frames in one inference; see `Slot.run`."""
        if self._helper is None:
            yield from super().run(batch, color_range, rank=rank, fit=fit)
            return
        running: list[_Running[AnyQuery]] = []
        for request in batch:
            number, message = len(running), request.serialized
            known = self._conversions.first((request.view, color_range, fit))
            made = self._pass_type(nv12=self._addresses[number], number=number)
            one = _Running(request, made, known)
            if rank and (ranking := request.ranking) and ranking.top_k <= native.MOST_CLASSES:
                made.wanted, made.threshold = ranking
            if known is not None and message is not None:
                assert message.memory is not None
                made.conversions = known.address
                made.message, made.length = message.memory.address, message.memory.size
            elif (reason := self._convert(one, color_range, fit)) is not None:
                yield unconverted(request, reason)
                continue
            running.append(one)
        while running:
            try:
                other = self._run(running)
            except Exception as error:
                for one in running:
                    yield Failed(one.request, error)
                return
            if other is None:
                break
            if (reason := self._convert(other, color_range, fit)) is not None:
                running.remove(other)
                yield unconverted(other.request, reason)
        for one in running:
            yield one.inferred()

    def _convert(
        self, one: _Running[AnyQuery], color_range: ColorRange, fit: Fit
    ) -> Exception | None:
        """Fill a frame's own input in Python, or return why that cannot be done."""
        one.native.message, request = None, one.request
        try:
            one.seen, plan = convert(request, self.inputs[one.native.number], color_range, fit)
        except Exception as error:
            return error
        one.native.converted = time.monotonic()
        if request.serialized is not None:
            view = (request.view, color_range, fit)
            self._conversions.learn(view, request.serialized, one.seen, plan)
        return None

    def _run(self, running: Sequence[_Running[AnyQuery]]) -> _Running[AnyQuery] | None:
        """Fill the inputs of those that still have a message, infer, and rank what is wanted.

        Returns:
            None once all is done, or the frame whose message the helper cannot convert: that is to be
            done in Python, and then this is to be called again.

        Raises:
            BackendError: the BPU refused, failed or timed out.

        """
        assert self._helper is not None
        count = len(running)
        passes = (c_void_p * count)(*[addressof(one.native) for one in running])
        # A refused frame leaves its input unused, so the last input may lie behind the last frame.
        program, _ = self._native[running[-1].native.number]
        result = self._helper.repghost_run(byref(program), passes, count)
        if result < 0:
            return running[-1 - result]
        if result:
            self.backend.check_step(Step(result), program.status)
        return None

    def _native_program(self, program: Program) -> tuple[Any, tuple[Any, ...]]:
        """Return what the compiled helper needs for an inference, and what has to be kept for it."""
        dnn = self.backend.dnn
        tensors, outputs, values = self._tasks[program.batch]
        scores = (c_double * program.classes)()
        images = (c_void_p * program.batch)(*map(addressof, self.images[: program.batch]))
        factors, offsets = (
            np.ascontiguousarray(np.broadcast_to(table, program.classes))
            for table in (program.factor, program.offset)
        )
        made = native.program(
            [
                ("flush", c_void_p, cast(dnn.hbSysFlushMem, c_void_p)),
                ("infer", c_void_p, cast(dnn.hbDNNInfer, c_void_p)),
                ("wait", c_void_p, cast(dnn.hbDNNWaitTaskDone, c_void_p)),
                ("release", c_void_p, cast(dnn.hbDNNReleaseTask, c_void_p)),
                ("model", c_void_p, program.handle),
                ("control", c_void_p, addressof(self.backend.control)),
                ("outputs", c_void_p, addressof(outputs)),
                ("answer", c_void_p, addressof(self.answer)),
                ("inputs", c_void_p, addressof(tensors)),
                ("images", c_void_p, addressof(images)),
                ("values", c_void_p, self.answer.virAddr),
                ("factors", c_void_p, factors.ctypes.data),
                ("offsets", c_void_p, offsets.ctypes.data),
                ("scores", c_void_p, addressof(scores)),
                ("image_step", c_int64, program.image_step),
                ("class_step", c_int64, program.class_step),
                ("batch", c_int32, program.batch),
                ("timeout_ms", c_int32, self.backend.timeout_ms),
                ("classes", c_int32, program.classes),
                ("element", c_int32, program.output.tensorType),
                ("status", c_int32, 0),
            ]
        )
        return made, (tensors, outputs, values, scores, images, factors, offsets)

    def close(self) -> None:
        """Free the buffers; further calls do nothing."""
        if self._memory:
            self._free()
            self.backend.slot_closed()

    def _free(self) -> None:
        for memory in self._memory:
            self.backend.dnn.hbSysFreeMem(byref(memory))
        self._memory = []


@dataclass
class _Running(Generic[AnyQuery]):
    """A frame of a batch on its way through the compiled helper."""

    request: AnyQuery
    native: native.Pass
    """Its own input and answer."""
    known: Conversion | None
    """Kept while the compiled helper may try it."""
    seen: Frame | None = None
    started: float = field(default_factory=time.monotonic)

    def inferred(self) -> Inferred[AnyQuery]:
        """Return its answer."""
        done = self.native
        times = Times(self.started, done.converted, done.inferred)
        ranked = done.wanted and done.best.count >= 0
        best = done.best if ranked else None
        return Inferred(self.request, done.read_logits(), times, self.seen, best)


def has_helper() -> bool:
    """Return whether the compiled helper runs the model."""
    return native.library() is not None


def _open(file: ModelFile, options: BackendOptions) -> LibdnnBackend:
    return LibdnnBackend(file.path, options)


RUNTIME = Runtime("libdnn", "bpu", (".bin",), available, version, _open)
