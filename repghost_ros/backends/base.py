# SPDX-License-Identifier: Apache-2.0
"""Interface of every runtime: a model that opens slots, and the record by which a runtime is found."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np

from repghost_ros.errors import BackendError
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import ColorRange, Plan
from repghost_ros.vision.view import USUAL, Fit, View
from repghost_ros.zoo.model_file import ModelFile
from repghost_ros.zoo.record import IMAGENET, Preprocessing

Activation = Literal["auto", "softmax", "sigmoid", "none", "independent"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
ChannelOrder = Literal["auto", "rgb", "bgr"]
CHANNEL_ORDERS: tuple[ChannelOrder, ...] = get_args(ChannelOrder)


Read = Callable[[Any], Frame]
"""Makes a frame of a request's message; raises where there is none in it."""


class Ranking(NamedTuple):
    """The classes that are wanted of a plain softmax: the most probable ones."""

    top_k: int
    """How many at most."""
    threshold: float
    """Least probability, 0.0 to 1.0."""


class Query(Protocol):
    """A request, as far as a slot needs it to answer it."""

    @property
    def message(self) -> Any:
        """The message or picture from which the frame is read."""

    @property
    def read(self) -> Read:
        """Makes a frame of the message."""

    @property
    def serialized(self) -> Serialized | None:
        """The message in memory, where nothing but its bytes decides what `read` makes of it."""

    @property
    def view(self) -> View:
        """The part of the frame that the model sees."""

    @property
    def ranking(self) -> Ranking | None:
        """The classes that the slot may find itself, None where it takes more than a softmax."""


AnyQuery = TypeVar("AnyQuery", bound=Query)


@dataclass(frozen=True)
class Times:
    """The times at which a frame was worked on: seconds on the monotonic clock."""

    started: float
    converted: float
    inferred: float
    """Of all frames of a batch together."""


@dataclass(frozen=True)
class Inferred(Generic[AnyQuery]):
    """A frame that the model has seen."""

    request: AnyQuery
    logits: np.ndarray
    """float32 (classes,); probabilities where the model ends in a softmax."""
    times: Times
    seen: Frame | None
    """What of the message the model saw, before it was scaled; None: nobody has read it in Python."""
    best: Iterable[tuple[int, float]] | None = None
    """Index and probability of the best classes, best first; None where the slot ranked none."""


@dataclass(frozen=True)
class Refused(Generic[AnyQuery]):
    """A frame that could not be read or converted, because of its message."""

    kind: ClassVar[str] = "refused"
    request: AnyQuery
    error: Exception


@dataclass(frozen=True)
class Failed(Generic[AnyQuery]):
    """A frame that the backend failed or hung on, or whose results could not be delivered."""

    kind: ClassVar[str] = "failed"
    request: AnyQuery
    error: Exception


class Slot(ABC):
    """One worker's share of a device: its input buffers and its task."""

    inputs: tuple[np.ndarray, ...]
    """uint8 (height * 3 // 2, width): as many as the backend's `batch`, in device memory if any."""

    @property
    def nv12(self) -> np.ndarray:
        """The first of `inputs`."""
        return self.inputs[0]

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`.

        Returns:
            float32 (classes,), the caller's own copy: logits, or probabilities where the model ends in
            a softmax.

        Raises:
            BackendError: the device refused, failed or timed out.

        """
        logits: np.ndarray = self.infer_batch(1)[0]
        return logits

    @abstractmethod
    def infer_batch(self, count: int) -> np.ndarray:
        """Run the model on the first `count` of `inputs`, in one task of the device.

        Returns:
            float32 (count, classes) logits, the caller's own copy.

        Raises:
            BackendError: the device refused, failed or timed out: none of the frames has an answer.

        """

    @abstractmethod
    def close(self) -> None:
        """Give the slot's buffers back; further calls do nothing."""

    def run(
        self,
        batch: Sequence[AnyQuery],
        color_range: ColorRange,
        *,
        rank: bool,
        fit: Fit = USUAL,
    ) -> Iterator[Inferred[AnyQuery] | Refused[AnyQuery] | Failed[AnyQuery]]:
        """Read, convert and infer several frames in one inference.

        Args:
            batch: no more than `inputs`.
            color_range: BT.601 range of the NV12 that the model wants.
            fit: how the model wants pictures to be fitted to its input.
            rank: whether the best classes may be found here: the model's outputs are logits.

        Yields:
            what became of each request, as soon as that is known: a frame that cannot be converted is
            refused alone; where the inference fails, the others fail.

        """
        converted: list[_Converted[AnyQuery]] = []
        for request in batch:
            number, started = len(converted), time.monotonic()
            try:
                frame, _ = convert(request, self.inputs[number], color_range, fit)
            except Exception as error:
                yield unconverted(request, error)
            else:
                converted.append(_Converted(request, number, frame, started, time.monotonic()))
        if not converted:
            return
        try:
            logits = self.infer_batch(len(converted))
        except Exception as error:
            for ready in converted:
                yield Failed(ready.request, error)
            return
        inferred = time.monotonic()
        for ready in converted:
            times = Times(ready.started, ready.converted, inferred)
            yield Inferred(ready.request, logits[ready.number], times, ready.frame)


@dataclass(frozen=True)
class _Converted(Generic[AnyQuery]):
    """A frame in an input, ready to be inferred."""

    request: AnyQuery
    number: int
    """Of its input."""
    frame: Frame
    started: float
    converted: float


def unconverted(request: AnyQuery, error: Exception) -> Refused[AnyQuery] | Failed[AnyQuery]:
    """Return what becomes of a frame that could not be converted: refused, if that is its own fault."""
    return (Failed if isinstance(error, MemoryError) else Refused)(request, error)


def convert(
    request: Query, nv12: np.ndarray, color_range: ColorRange, fit: Fit
) -> tuple[Frame, Plan]:
    """Write what the model sees of a request's frame into an input.

    Returns:
        that part of the frame, before it was scaled, and how it was converted.

    Raises:
        Exception: whatever its `read` raised, or FrameError from its `view`.

    """
    frame = request.view.crop(request.read(request.message))
    plan = request.view.plan(frame, nv12, color_range, fit)
    plan.run()
    return frame, plan


class SingleSlot(Slot):
    """A slot of a runtime that takes one frame at a time.

    Args:
        height, width: of the model's input in pixels.

    """

    def __init__(self, height: int, width: int) -> None:
        self.inputs = (np.full((height * 3 // 2, width), 128, np.uint8),)

    @abstractmethod
    def infer(self) -> np.ndarray:
        """Run the model on `nv12`; see `Slot.infer`."""

    def infer_batch(self, count: int) -> np.ndarray:
        """Run the model on the one buffer: float32 (1, classes)."""
        return self.infer()[np.newaxis]


class Backend(Protocol):
    """A loaded model. Its slots may infer at the same time, one thread each."""

    @property
    def runtime(self) -> str:
        """The runtime in words, as shown in logs and diagnostics."""

    @property
    def width(self) -> int:
        """Input width in pixels."""

    @property
    def height(self) -> int:
        """Input height in pixels."""

    @property
    def classes(self) -> int:
        """Number of logits."""

    @property
    def batch(self) -> int:
        """The largest number of frames that a slot can infer together."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names that the model file carries, empty where it carries none."""

    def open_slot(self) -> Slot:
        """Allocate the buffers of one worker.

        Raises:
            BackendError: the device has no room for another slot.

        """

    def close(self) -> None:
        """Unload the model; further calls do nothing. Its slots are closed first."""


@dataclass(frozen=True)
class BackendOptions:
    """Options for running a model; a runtime reads those that concern it."""

    bpu_runtime: str = "auto"
    """One of `registry.BPU_RUNTIMES`."""
    bpu_core: int = 0
    """BPU core to run on: 0 for any."""
    bpu_priority: int = 0
    """Task priority on the BPU, 0 (lowest) to 255."""
    timeout_s: float = 1.0
    """Seconds to wait for one inference on the BPU before it counts as failed."""
    model_name: str = ""
    """Which of the models in a compiled file to run; may be empty where there is one."""
    color_range: ColorRange | Literal["auto"] = "auto"
    """BT.601 range of the NV12 that the model is given; auto: what its file records, or full."""
    activation: Activation = "auto"
    """How outputs become scores: `softmax`; `sigmoid`, each class by itself; `none`, they are
    probabilities of one of many classes; `independent`, they are those of each class by itself; `auto`:
    by the end of the graph, else by the answers."""
    onnx_providers: Sequence[str] = ("auto",)
    """ONNX Runtime's execution providers, the best first, such as cuda; auto: all that it offers."""
    onnx_threads: int = 1
    """ONNX Runtime threads inside one inference; the workers run beside each other anyway."""
    mean: Sequence[float] = ()
    """What an ONNX model wants subtracted from R, G, B (0 to 255); empty: as the model says, else
    ImageNet's."""
    scale: Sequence[float] = ()
    """What it wants that multiplied by; empty: as the model says, else ImageNet's."""
    preprocessing: Preprocessing = IMAGENET
    """Of an ONNX model whose file does not record its own: the catalogue's, or else ImageNet's."""
    channel_order: ChannelOrder = "auto"
    """Order of an ONNX model's channels; auto: as the model says, else rgb."""


DEFAULTS = BackendOptions()


@dataclass(frozen=True)
class Runtime:
    """A library that runs models, and how to open a model with it."""

    name: str
    """As in the parameter `bpu_runtime`; `onnx` for ONNX Runtime."""
    backend: str
    """What it computes on: `bpu` or `onnx`."""
    suffixes: tuple[str, ...]
    """Endings of its model files; the first is that of the published models."""
    available: Callable[[], str | None]
    """None where it is usable here, else why not and what to do about it."""
    version: Callable[[], str]
    """The version of a usable one, empty where it tells none."""
    open: Callable[[ModelFile, BackendOptions], Backend]
    """Load a model file, which was read already.

    Raises:
        BackendError: the runtime is missing, or the file is missing, corrupt or no classifier.

    """

    @property
    def format(self) -> str:
        """The format of the published models that it runs: `bin` or `onnx`."""
        return self.suffixes[0][1:]


def load_module(*names: str, install: str) -> Any:
    """Import the first of a runtime's Python modules that is installed.

    Args:
        names: it may be packaged under several.
        install: what installs it, or makes a broken installation work.

    Raises:
        BackendError: none is installed, or the one that is cannot be imported, and why.

    """
    broken = ""
    for name in names:
        try:
            return import_module(name)
        except Exception as error:  # a vendor's package raises anything
            package = name.partition(".")[0]
            if not (isinstance(error, ModuleNotFoundError) and error.name == package):
                broken = broken or f"{name} cannot be imported ({type(error).__name__}: {error})"
    absent = f"{names[0].partition('.')[0]} is not installed"
    raise BackendError(f"{broken or absent}: {install}")


def why_not(load: Callable[[], object]) -> str | None:
    """None where a runtime's library can be loaded, else why not and what to do about it."""
    try:
        load()
    except BackendError as error:
        return str(error)
    return None


def image_size(path: Path, shape: Sequence[int], *, channels_last: bool) -> tuple[int, int]:
    """Width and height of a 1x3xHxW or 1xHxWx3 input, in pixels.

    Raises:
        BackendError: the shape is not that of an image of even size, as NV12 needs.

    """
    if len(shape) == 4 and shape[0] == 1:
        height, width = shape[1:3] if channels_last else shape[2:4]
        if height > 0 and width > 0 and height % 2 == width % 2 == 0:
            return width, height
    raise BackendError(
        f"the input of '{path}' has shape {list(shape)}: expected one image of even width and height"
    )
