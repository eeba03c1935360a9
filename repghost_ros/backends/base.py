# SPDX-License-Identifier: Apache-2.0
"""What every runtime offers: a model that opens slots, and how the runtime itself is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

import repghost_ros.native as native
from repghost_ros.errors import BackendError
from repghost_ros.vision.nv12 import ColorRange
from repghost_ros.zoo.record import IMAGENET, Preprocessing

Activation = Literal["auto", "softmax", "none"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
ChannelOrder = Literal["auto", "rgb", "bgr"]
CHANNEL_ORDERS: tuple[ChannelOrder, ...] = get_args(ChannelOrder)


class Slot(Protocol):
    """What one worker needs to infer: its input buffers and its place on the device."""

    @property
    def nv12(self) -> np.ndarray:
        """uint8 (height * 3 // 2, width): a lone frame goes here, into device memory if any."""

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """Such buffers for as many frames as the backend's `batch`; the first is `nv12`."""

    @property
    def native(self) -> NativeSlot | None:
        """What takes whole frames through this slot in C, None where nothing does."""

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`.

        Returns:
            float32 (classes,), the caller's own copy: logits, or probabilities where the model ends in
            a softmax.

        Raises:
            BackendError: the device refused, failed or timed out.

        """

    def infer_batch(self, count: int) -> np.ndarray:
        """Run the model on the first `count` of `inputs`, in one task of the device.

        Returns:
            float32 (count, classes) logits, the caller's own copy.

        Raises:
            BackendError: the device refused, failed or timed out: none of the frames has an answer.

        """

    def close(self) -> None:
        """Give the slot's buffers back; further calls do nothing."""


class NativeSlot(Protocol):
    """A slot's way from serialized images to the best classes in C; see `native`."""

    def frame(self) -> native.Frame:
        """A new frame, with room for its logits."""

    def run(self, frames: Sequence[native.Frame]) -> int | None:
        """Fill the inputs of those frames that have a message, infer, and name what is wanted.

        Returns:
            None once all is done, or which frame's message is no NV12 of the model's size: its input
            is to be filled and its message removed, and then this is to be called again.

        Raises:
            BackendError: the device refused, failed or timed out: none of the frames has an answer.

        """


class SingleSlot:
    """What a slot of a runtime that takes one frame at a time makes of a batch."""

    nv12: np.ndarray
    native: NativeSlot | None = None

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """The one buffer."""
        return (self.nv12,)

    def infer(self) -> np.ndarray:
        """To be written by the runtime."""
        raise NotImplementedError

    def infer_batch(self, count: int) -> np.ndarray:
        """Run the model on the one buffer: float32 (1, classes)."""
        assert count == 1
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
        """How many frames a slot can infer together, at most."""

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
    """How a model is to be run; each runtime reads what concerns it."""

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
    """What makes scores of the outputs; auto: softmax unless the model gives probabilities itself."""
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
    open: Callable[[Path, BackendOptions], Backend]
    """Load a model file.

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
        BackendError: the shape is no image of even size, as NV12 needs.

    """
    if len(shape) == 4 and shape[0] == 1:
        height, width = shape[1:3] if channels_last else shape[2:4]
        if height > 0 and width > 0 and height % 2 == width % 2 == 0:
            return width, height
    raise BackendError(
        f"the input of '{path}' has shape {list(shape)}: expected one image of even width and height"
    )
