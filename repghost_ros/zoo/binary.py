"""What a model file records about itself; a compiled one (.bin): how it was compiled and what it takes.

A .bin is a protobuf. Its fields were found by comparing files that hb_mapper 1.24.3 wrote with what
`hb_model_info` prints of them; none of the vendor's packages is needed to read them. What cannot be
read so is no error: the board's runtime is the judge of model files.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from repghost_ros.errors import BackendError
from repghost_ros.vision.nv12 import COLOR_RANGES, ColorRange

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
_NOT_READABLE = (ValueError, IndexError, KeyError)


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
        """Pictures in one inference."""
        return self.input.shape[0]

    @property
    def march(self) -> str:
        """The kind of BPU that it is for, empty where that is not recorded."""
        return self.settings.get("MARCH", "")

    @property
    def color_range(self) -> ColorRange | None:
        """Of the NV12 that it takes, None where that is not recorded."""
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
    """The models in a .bin, empty where the file is none that can be read here.

    Raises:
        OSError: the file cannot be read.

    """
    models, settings = [], {}
    try:
        for field, value in fields(_mapped(path)):
            if field == _GRAPH:
                models.append(_read_graph(_message(value)))
            elif field == _SETTINGS:
                one = _read_settings(_message(value))
                settings[one.get("MODEL_PREFIX", "")] = one
    except _NOT_READABLE:
        return ()
    # The compiler calls a model by the prefix of its files' names.
    only = next(iter(settings.values()), {}) if len(models) == 1 else {}
    return tuple(replace(model, settings=settings.get(model.name, only)) for model in models)


def recorded_color_range(path: Path) -> ColorRange | None:
    """The range of the NV12 that a model file was made for, None where it does not say.

    Raises:
        BackendError: the models in it were made for different ones.
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
    """The range to give a model: what its file records, `full` where it records none.

    Args:
        path: the model file.
        wanted: `auto`, or a range that must not contradict the file.

    Raises:
        BackendError: it does.
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


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message, by the public wire format.

    Raises:
        ValueError: this is no such message.
        IndexError: it is cut short.

    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(message, place)
            yield key >> 3, number
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no protobuf: field of kind {kind}")
        if place + size > len(message):
            raise IndexError(f"cut short: {place + size - len(message)} bytes are missing")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("no protobuf: a number of more than ten bytes")


def _mapped(path: Path) -> memoryview:
    """A file's content, of which only what is looked at is read."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read_graph(graph: memoryview) -> Compiled:
    found = {field: value for field, value in fields(graph) if field in _GRAPH_FIELDS}
    image, answer = (
        _read_tensor(_message(found[field])) for field in (_GRAPH_INPUT, _GRAPH_OUTPUT)
    )
    kinds = _message(found.get(_GRAPH_KINDS, memoryview(b"")))
    name = _text(found[_GRAPH_NAME])
    return Compiled(name, image, answer, set(kinds) == {_NV12}, {})


def _read_tensor(tensor: memoryview) -> Tensor:
    found = dict(fields(tensor))
    dimensions, shape, place = _message(dict(fields(_message(found[2])))[2]), [], 0
    while place < len(dimensions):
        size, place = _varint(dimensions, place)
        shape.append(size)
    if not shape:
        raise ValueError("a tensor without a shape")
    return Tensor(_text(found[1]), tuple(shape))


def _read_settings(settings: memoryview) -> dict[str, str]:
    pairs = (dict(fields(_message(value))) for _, value in fields(settings))
    # A list with one entry an input, each with a semicolon behind it.
    return {_text(pair[1]): _text(pair[2]).strip(" ;") for pair in pairs if 2 in pair}


def _range_in_metadata(path: Path) -> ColorRange | None:
    """What `repghost export --fold-preprocess` wrote."""
    try:
        for field, value in fields(_mapped(path)):
            if field != _ONNX_METADATA:
                continue
            entry = dict(fields(_message(value)))
            if _text(entry[1]) == COLOR_RANGE_KEY:
                named = _text(entry[2])
                return next((known for known in COLOR_RANGES if known == named), None)
    except _NOT_READABLE:
        pass
    return None


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
