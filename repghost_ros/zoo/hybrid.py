# SPDX-License-Identifier: Apache-2.0
"""The content of a compiled model (.bin): the BPU's program, and how its integers become logits.

A .bin is a protobuf: a small graph whose one big node runs on the BPU, a node that scales its
output, its tensors by name, and the settings it was compiled with. It is read here without the
vendor's packages; the field numbers are those seen in files that hb_mapper 1.24.3 wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repghost_ros.errors import BackendError
from repghost_ros.zoo.protobuf import Value, fields, mapped, message, numbers, text

_GRAPH, _SETTINGS = 5, 6
_NODES, _NAME, _TENSORS, _INPUTS, _OUTPUTS = 1, 2, 3, 4, 5
_ON_BPU = (4, memoryview(b"BPU"))
"""Field of a node that says what runs it."""
_PROGRAM = "PACKED_HBM_MODEL"
_SCALE_SUFFIX = "_scale"
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
    """What an unloadable file seems to be, for the error message."""
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
        BackendError: the file is missing, or not a compiled NV12 classifier of one part.

    """
    if not path.is_file():
        raise BackendError(f"model file '{path}' does not exist")
    try:
        return _read(mapped(path))
    except (ValueError, IndexError, KeyError, StopIteration, UnicodeDecodeError) as error:
        raise BackendError(
            f"'{path}' is no compiled model that can be simulated ({error or 'damaged'}): expected a "
            ".bin with one NV12 classifier for the BPU"
        ) from error


def _read(data: memoryview) -> Hybrid:
    whole = list(fields(data))
    graphs = [value for field, value in whole if field == _GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"it holds {len(graphs)} models")
    graph = list(fields(message(graphs[0])))
    settings = {}
    for field, value in whole:
        if field == _SETTINGS:
            for _, entry in fields(message(value)):
                pair = dict(fields(message(entry)))
                settings[text(pair[1])] = text(pair[2]).strip(" ;") if 2 in pair else ""
    if settings.get("INPUT_TYPE_RT", "nv12") not in _NV12:
        raise ValueError(f"it takes {settings['INPUT_TYPE_RT']}")
    nodes = [list(fields(message(value))) for field, value in graph if field == _NODES]
    units = [_first(node, 3) for node in nodes if _ON_BPU in node]
    if len(units) != 1:
        raise ValueError(f"{len(units)} parts of it run on the BPU")
    program, scale = b"", np.ones(1, np.float32)
    for field, value in graph:
        if field == _TENSORS:
            tensor = list(fields(message(value)))
            name = text(_first(tensor, 8))
            if name == _PROGRAM:
                program = bytes(_first(tensor, 5))
            elif name.endswith(_SCALE_SUFFIX):
                scale = np.frombuffer(_first(tensor, 2), np.float32)
    if not program:
        raise ValueError("it holds no program for the BPU")
    batch, height, width, _ = _shape(graph, _INPUTS)
    _, classes = _shape(graph, _OUTPUTS)[:2]
    if scale.size not in (1, classes):
        raise ValueError(f"it has {scale.size} scales for {classes} classes")
    return Hybrid(
        text(_first(graph, _NAME)),
        batch,
        width,
        height,
        classes,
        program,
        text(units[0]),
        scale,
        settings,
    )


def _shape(graph: list[tuple[int, Value]], field: int) -> list[int]:
    """The only input or output."""
    values = [value for number, value in graph if number == field]
    if len(values) != 1:
        raise ValueError("it has several inputs or outputs")
    described = _first(list(fields(message(values[0]))), 2)
    return numbers(_first(list(fields(described)), 2))


def _first(entries: list[tuple[int, Value]], number: int) -> memoryview:
    return message(next(value for field, value in entries if field == number))
