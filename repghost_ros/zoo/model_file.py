# SPDX-License-Identifier: Apache-2.0
"""What a model file says of itself, read once when the model is opened and handed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from repghost_ros.errors import BackendError, StoreError
from repghost_ros.files import LFS_POINTER, refuse_pointer
from repghost_ros.graphs.ending import SIGMOID_LOGITS
from repghost_ros.vision.nv12 import COLOR_RANGES, ColorRange
from repghost_ros.zoo.binary import Compiled, parse_compiled
from repghost_ros.zoo.onnx_graph import EMPTY, OnnxContent, parse_onnx
from repghost_ros.zoo.own import NO_RECORD, Own, own_of, read_sidecar
from repghost_ros.zoo.protobuf import mapped

AUTO = "auto"
"""Instead of a color range: the one that the model file records."""
COLOR_RANGE_KEY = "color_range"
"""ONNX metadata of a model with its preprocessing folded in: the range of the NV12 that it takes."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file's records; a file that cannot be read here may still run: its runtime decides."""

    path: Path
    own: Own = NO_RECORD
    """Of its classes."""
    onnx: OnnxContent = EMPTY
    """Of an .onnx."""
    compiled: tuple[Compiled, ...] = ()
    """The models in a .bin."""
    damage: str = ""
    """Why a .bin cannot be read, empty if it can."""

    @property
    def is_onnx(self) -> bool:
        """True for an .onnx."""
        return self.path.suffix.lower() == ".onnx"

    @property
    def has_sigmoid_logits(self) -> bool:
        """True if an output's name says that a sigmoid was cut off."""
        names = self.onnx.outputs or [p.name for model in self.compiled for p in model.outputs]
        return SIGMOID_LOGITS in names

    @property
    def color_range(self) -> ColorRange | None:
        """The range of the NV12 that the model takes; None if the file does not say.

        Raises:
            BackendError: the models in it were made for different ranges.

        """
        if self.is_onnx:
            return recorded_range(self.onnx.metadata.get(COLOR_RANGE_KEY))
        recorded = {model.color_range for model in self.compiled}
        if len(recorded) > 1:
            raise BackendError(
                f"the models in '{self.path}' are for NV12 of different ranges: compile alike"
            )
        return next(iter(recorded), None)

    def for_simulation(self) -> Compiled:
        """Return the one model in a .bin, if it is complete enough to be simulated.

        Raises:
            BackendError: it is not a compiled NV12 classifier of one part.

        """
        if len(self.compiled) == 1:
            why = self.compiled[0].unfit_for_simulation()
        else:
            why = self.damage or f"it holds {len(self.compiled)} models"
        if why:
            raise BackendError(
                f"'{self.path}' cannot be simulated ({why}): expected a .bin with one NV12 classifier "
                "for the BPU"
            )
        return self.compiled[0]


def read_model_file(path: Path) -> ModelFile:
    """Read what a model file says of itself.

    Raises:
        StoreError: it, or a file of its weights, is a Git LFS pointer.
        BackendError: it does not exist, or its records of its classes are wrong or of another file.

    """
    try:
        content = mapped(path)
    except FileNotFoundError as error:
        raise BackendError(f"model file '{path}' does not exist") from error
    except OSError as error:
        raise BackendError(f"model file '{path}' cannot be read: {error}") from error
    except ValueError as error:  # it is empty
        return ModelFile(path=path, damage=str(error))
    if content[: len(LFS_POINTER)] == LFS_POINTER:
        refuse_pointer(path)
    try:
        if path.suffix.lower() == ".onnx":
            onnx = parse_onnx(content)
            for file in onnx.weight_files(path):
                refuse_pointer(file)
            return ModelFile(path=path, onnx=onnx, own=own_of(onnx.metadata))
        own = read_sidecar(path, content)
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BackendError(
            f"what '{path}' records of its classes cannot be read: {error}"
        ) from error
    try:
        return ModelFile(path=path, own=own, compiled=parse_compiled(content))
    except (ValueError, KeyError) as error:
        return ModelFile(path=path, own=own, damage=str(error) or "damaged")


def recorded_range(text: str | None) -> ColorRange | None:
    """Return the color range that a model's metadata has, None if it has no known one."""
    return next((known for known in COLOR_RANGES if known == text), None)


def choose_color_range(path: Path, recorded: ColorRange | None, wanted: str) -> ColorRange:
    """Return the range to feed a model: the one its file records, or `full` if it records none.

    Args:
        path: the model file, for the message.
        recorded: by it.
        wanted: `auto`, or a range, which must not contradict the file.

    Raises:
        BackendError: it contradicts the file.

    """
    for color_range in COLOR_RANGES:
        if wanted == color_range and recorded in (None, color_range):
            return color_range
    if wanted != AUTO:
        raise BackendError(
            f"'{path}' was made for NV12 of the range '{recorded}', which the file records: set "
            f"color_range to that or to {AUTO}, not to '{wanted}'"
        )
    return recorded or "full"
