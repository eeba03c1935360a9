# SPDX-License-Identifier: Apache-2.0
"""What a compiled model (.bin) holds: the BPU's program, and how its integers become logits.

A .bin is a protobuf: a small graph whose one big node runs on the BPU, a node that scales what that one
answers, its tensors by name, and the settings it was compiled with. It is read here without the
vendor's packages; the field numbers are those seen in files that hb_mapper 1.24.3 wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repghost_ros.errors import BackendError

_GRAPH, _SETTINGS = 5, 6
_NODES, _NAME, _TENSORS, _INPUTS, _OUTPUTS = 1, 2, 3, 4, 5
_PROGRAM = b"PACKED_HBM_MODEL"
_SCALE_SUFFIX = b"_scale"
_NV12 = ("nv12", "yuv420sp_bt601_video")
"""How INPUT_TYPE_RT records NV12 of the full and of the limited range."""
_BARE_PROGRAM = b"#B2Ehbm#"  # how a .hbm begins


@dataclass(frozen=True)
class Hybrid:
    """A compiled classifier that takes NV12."""

    name: str
    batch: int
    """Pictures in one inference."""
    width: int
    height: int
    classes: int
    program: bytes
    """The .hbm, as the BPU's simulator takes it."""
    unit: str
    """Name of the model in the .hbm."""
    scale: np.ndarray
    """float32 (classes,) or (1,): logit = integer * scale."""
    settings: dict[str, str]
    """What it was compiled with, such as INPUT_SPACE_AND_RANGE."""


def look_at(path: Path) -> str:
    """What a file that cannot be loaded seems to be, to be told with the error."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(_BARE_PROGRAM):
        return "it is the bare program for the BPU (.hbm): use the .bin that it was compiled into"
    if b"pytorch" in head or b"onnx" in head:
        return "it is an ONNX file: compile it (repghost quantize), or name it .onnx"
    return "is it whole, and compiled for bayes-e?"


def read_hybrid(path: Path) -> Hybrid:
    """Read a .bin.

    Raises:
        BackendError: the file is missing, or no compiled NV12 classifier of one part.

    """
    if not path.is_file():
        raise BackendError(f"model file '{path}' does not exist")
    try:
        return _read(path.read_bytes())
    except (ValueError, IndexError, KeyError, StopIteration, UnicodeDecodeError) as error:
        raise BackendError(
            f"'{path}' is no compiled model that can be simulated ({error or 'damaged'}): expected a "
            ".bin with one NV12 classifier for the BPU"
        ) from error


def _read(data: bytes) -> Hybrid:
    whole = list(_fields(data))
    graphs = [value for field, value in whole if field == _GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} models")
    graph = list(_fields(_bytes(graphs[0])))
    settings = {}
    for field, value in whole:
        if field == _SETTINGS:
            for _, entry in _fields(_bytes(value)):
                pair = dict(_fields(_bytes(entry)))
                settings[_bytes(pair[1]).decode()] = _bytes(pair.get(2, b"")).decode().strip(" ;")
    if settings.get("INPUT_TYPE_RT", "nv12") not in _NV12:
        raise ValueError(f"it takes {settings['INPUT_TYPE_RT']}")
    nodes = [list(_fields(_bytes(value))) for field, value in graph if field == _NODES]
    units = [_first(node, 3) for node in nodes if (4, b"BPU") in node]
    if len(units) != 1:
        raise ValueError(f"{len(units)} parts of it run on the BPU")
    program, scale = b"", np.ones(1, np.float32)
    for field, value in graph:
        if field == _TENSORS:
            tensor = list(_fields(_bytes(value)))
            name = _first(tensor, 8)
            if name == _PROGRAM:
                program = _first(tensor, 5)
            elif name.endswith(_SCALE_SUFFIX):
                scale = np.frombuffer(_first(tensor, 2), np.float32)
    if not program:
        raise ValueError("it holds no program for the BPU")
    batch, height, width, _ = _shape(graph, _INPUTS)
    _, classes = _shape(graph, _OUTPUTS)[:2]
    if scale.size not in (1, classes):
        raise ValueError(f"it has {scale.size} scales for {classes} classes")
    return Hybrid(
        _first(graph, _NAME).decode(),
        batch,
        width,
        height,
        classes,
        program,
        units[0].decode(),
        scale,
        settings,
    )


def _shape(graph: list[tuple[int, int | bytes]], field: int) -> list[int]:
    """Of the only input or output."""
    values = [value for number, value in graph if number == field]
    if len(values) != 1:
        raise ValueError("it has several inputs or outputs")
    described = _first(list(_fields(_first(list(_fields(_bytes(values[0]))), 2))), 2)
    shape, place = [], 0
    while place < len(described):
        size, place = _varint(described, place)
        shape.append(size)
    return shape


def _first(fields: list[tuple[int, int | bytes]], number: int) -> bytes:
    return _bytes(next(value for field, value in fields if field == number))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("unexpected number")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of a message's fields: varints as int, all others as bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("no protobuf")
        if place + size > len(data):
            raise ValueError("cut short")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("no protobuf")
