# SPDX-License-Identifier: Apache-2.0
"""What a model file records about itself; for a compiled one (.bin), its inputs and how it was made.

A .bin is a protobuf. Its fields were found by comparing files that hb_mapper 1.24.3 wrote with what
`hb_model_info` prints of them; none of the vendor's packages is needed to read them. What cannot be
read so is no error: the board's runtime is the judge of model files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from repghost_ros.errors import BackendError
from repghost_ros.vision.nv12 import COLOR_RANGES, ColorRange
from repghost_ros.zoo.protobuf import fields, mapped, message, numbers, text

AUTO = "auto"
"""Instead of a color range: what the model file records."""
MARCH = "bayes-e"
"""The BPU of the RDK X5."""
BOARDS = {MARCH: "RDK X5", "bernoulli2": "RDK X3", "nash-e": "RDK S100", "nash-m": "RDK S100P"}
RANGES: Mapping[str, ColorRange] = {"regular": "full", "bt601_video": "limited"}
"""The toolchain's input_space_and_range -> our color ranges."""
COLOR_RANGE_KEY = "color_range"
"""ONNX metadata of a model with its preprocessing folded in: the range of the NV12 that it takes."""
_GRAPH, _SETTINGS = 5, 6
_GRAPH_NAME, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_KINDS = 2, 4, 5, 7
_GRAPH_FIELDS = (_GRAPH_NAME, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_KINDS)
_NV12 = 7  # the kind of input that hb_model_info calls NV12
_ONNX_METADATA = 14  # metadata_props of ModelProto, by the public onnx.proto
_NOT_READABLE = (ValueError, KeyError)


class Tensor(NamedTuple):
    """An input or output."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Compiled:
    """One of the models in a .bin."""

    name: str
    input: Tensor
    """As the BPU sees it: batch, height, width, channels."""
    output: Tensor
    takes_nv12: bool
    settings: Mapping[str, str]
    """What the compiler was told, by its own names, such as INPUT_SPACE_AND_RANGE."""

    @property
    def batch(self) -> int:
        """Frames per inference."""
        return self.input.shape[0]

    @property
    def march(self) -> str:
        """The BPU generation it was compiled for; empty if not recorded."""
        return self.settings.get("MARCH", "")

    @property
    def color_range(self) -> ColorRange | None:
        """The range of the NV12 it takes; None if not recorded."""
        return RANGES.get(self.settings.get("INPUT_SPACE_AND_RANGE", ""))

    def unfit(self) -> str:
        """Why an RDK X5 cannot classify NV12 with it, or empty."""
        if self.march not in ("", MARCH):
            board = BOARDS.get(self.march)
            return (
                f"it is compiled for {self.march}{f' ({board})' if board else ''}, not for {MARCH} "
                f"({BOARDS[MARCH]})"
            )
        if not self.takes_nv12:
            kind = self.settings.get("INPUT_TYPE_RT") or "something else"
            return f"it takes {kind}, not NV12: compile it with input_type_rt: nv12"
        return ""


def read_compiled(path: Path) -> tuple[Compiled, ...]:
    """The models in a .bin; empty if the file cannot be read this way.

    Raises:
        OSError: the file cannot be read.

    """
    models, settings = [], {}
    try:
        for field, value in fields(mapped(path)):
            if field == _GRAPH:
                models.append(_read_graph(message(value)))
            elif field == _SETTINGS:
                one = _read_settings(message(value))
                settings[one.get("MODEL_PREFIX", "")] = one
    except _NOT_READABLE:
        return ()
    # The compiler names a model after the prefix of its files.
    only = next(iter(settings.values()), {}) if len(models) == 1 else {}
    return tuple(replace(model, settings=settings.get(model.name, only)) for model in models)


def recorded_color_range(path: Path) -> ColorRange | None:
    """The NV12 range that a model file was made for; None if it does not say.

    Raises:
        BackendError: the models in it were made for different ranges.
        OSError: the file cannot be read.

    """
    if path.suffix.lower() == ".onnx":
        recorded = {_range_in_metadata(path)}
    else:
        recorded = {model.color_range for model in read_compiled(path)}
    if len(recorded) > 1:
        raise BackendError(
            f"the models in '{path}' are for NV12 of different ranges: compile alike"
        )
    return next(iter(recorded), None)


def choose_color_range(path: Path, wanted: str) -> ColorRange:
    """The range to feed a model: the one its file records, or `full` if it records none.

    Args:
        path: the model file.
        wanted: `auto`, or a range, which must not contradict the file.

    Raises:
        BackendError: it contradicts the file.
        OSError: the file cannot be read.

    """
    recorded = recorded_color_range(path)
    for color_range in COLOR_RANGES:
        if wanted == color_range and recorded in (None, color_range):
            return color_range
    if wanted != AUTO:
        raise BackendError(
            f"'{path}' was made for NV12 of the range '{recorded}', which the file records: set "
            f"color_range to that or to {AUTO}, not to '{wanted}'"
        )
    return recorded or "full"


def _read_graph(graph: memoryview) -> Compiled:
    found = {field: value for field, value in fields(graph) if field in _GRAPH_FIELDS}
    image, answer = (_read_tensor(message(found[field])) for field in (_GRAPH_INPUT, _GRAPH_OUTPUT))
    kinds = message(found.get(_GRAPH_KINDS, memoryview(b"")))
    name = text(found[_GRAPH_NAME])
    return Compiled(name, image, answer, set(kinds) == {_NV12}, {})


def _read_tensor(tensor: memoryview) -> Tensor:
    found = dict(fields(tensor))
    shape = numbers(message(dict(fields(message(found[2])))[2]))
    if not shape:
        raise ValueError("a tensor without a shape")
    return Tensor(text(found[1]), tuple(shape))


def _read_settings(settings: memoryview) -> dict[str, str]:
    pairs = (dict(fields(message(value))) for _, value in fields(settings))
    # A list with one entry per input, each followed by a semicolon.
    return {text(pair[1]): text(pair[2]).strip(" ;") for pair in pairs if 2 in pair}


def _range_in_metadata(path: Path) -> ColorRange | None:
    """What `repghost export --fold-preprocess` wrote."""
    try:
        for field, value in fields(mapped(path)):
            if field != _ONNX_METADATA:
                continue
            entry = dict(fields(message(value)))
            if text(entry[1]) == COLOR_RANGE_KEY:
                named = text(entry[2])
                return next((known for known in COLOR_RANGES if known == named), None)
    except _NOT_READABLE:
        pass
    return None
