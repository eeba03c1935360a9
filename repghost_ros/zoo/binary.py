# SPDX-License-Identifier: Apache-2.0
"""Read what a compiled file records of itself: its inputs, how it was compiled, its BPU program.

A .bin is a protobuf: for every model a small graph whose one big node runs on the BPU, a node that
scales its output, and its tensors by name; then the settings of the compilation. The fields were found
by comparing files that hb_mapper 1.24.3 wrote with what `hb_model_info` prints of them; none of the
vendor's packages is needed to read them. A file that cannot be read this way may still run: the board's
runtime decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repghost_ros.vision.nv12 import ColorRange
from repghost_ros.zoo.protobuf import Value, fields, mapped, message, numbers, text

MARCH = "bayes-e"
"""The BPU of the RDK X5."""
BOARDS = {MARCH: "RDK X5", "bernoulli2": "RDK X3", "nash-e": "RDK S100", "nash-m": "RDK S100P"}
RANGES: Mapping[str, ColorRange] = {"regular": "full", "bt601_video": "limited"}
"""The toolchain's input_space_and_range -> our color ranges."""
_GRAPH, _SETTINGS = 5, 6  # of the file
_NODES, _NAME, _TENSORS, _INPUTS, _OUTPUTS, _KINDS = 1, 2, 3, 4, 5, 7  # of a graph
_NODE_NAME, _NODE_OPERATOR = 3, 4
_TENSOR_FLOATS, _TENSOR_BYTES, _TENSOR_NAME = 2, 5, 8
_ON_BPU = "BPU"
_SCALING = {"Dequantize", "Quantize", "Reshape", "Transpose", "Flatten", "Squeeze"}
"""Operators of the CPU that only scale or arrange what the BPU made."""
_PROGRAM = "PACKED_HBM_MODEL"
_SCALE_SUFFIX = "_scale"
_NV12 = 7  # the kind of input that hb_model_info calls NV12
_NV12_NAMES = ("nv12", "yuv420sp_bt601_video")
"""INPUT_TYPE_RT of NV12 of the full and of the limited range."""
_BARE_PROGRAM = b"#B2Ehbm#"  # how a .hbm begins


class Port(NamedTuple):
    """An input or output of a compiled model."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One of the models in a .bin."""

    name: str
    inputs: tuple[Port, ...]
    """As the BPU sees them: batch, height, width, channels."""
    outputs: tuple[Port, ...]
    takes_nv12: bool
    bpu_parts: tuple[str, ...]
    """Names of the parts that run on the BPU, as the .hbm has them."""
    cpu_nodes: Mapping[str, str]
    """Operators that run on the CPU, such as Softmax, by the names of their nodes in the quantized
    model; scaling and arranging do not count."""
    program: memoryview
    """The .hbm, as the BPU's simulator takes it; empty if there is none."""
    scale: np.ndarray
    """float32 (classes,) or (1,): logit = integer of the BPU * scale."""
    settings: Mapping[str, str]
    """Settings of the compilation, by the compiler's own names, such as INPUT_SPACE_AND_RANGE."""

    @property
    def batch(self) -> int:
        """Frames per inference."""
        return self.inputs[0].shape[0]

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self.inputs[0].shape[1]

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self.inputs[0].shape[2]

    @property
    def classes(self) -> int:
        """Number of logits of one frame."""
        return self.outputs[0].shape[1]

    @property
    def march(self) -> str:
        """The BPU generation it was compiled for; empty if not recorded."""
        return self.settings.get("MARCH", "")

    @property
    def color_range(self) -> ColorRange | None:
        """The range of the NV12 it takes; None if not recorded."""
        return RANGES.get(self.settings.get("INPUT_SPACE_AND_RANGE", ""))

    def unfit(self) -> str:
        """Return why an RDK X5 cannot classify NV12 with it, or an empty string."""
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

    def unfit_for_simulation(self) -> str:
        """Return why the BPU's simulator cannot stand in for a board, or an empty string."""
        kind = self.settings.get("INPUT_TYPE_RT", _NV12_NAMES[0])
        if kind not in _NV12_NAMES:
            return f"it takes {kind}"
        if len(self.bpu_parts) != 1:
            return f"{len(self.bpu_parts)} parts of it run on the BPU"
        if not self.program:
            return "it holds no program for the BPU"
        if self.cpu_nodes:
            return f"it runs {', '.join(self.cpu_nodes.values())} on the CPU"
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            return "it has several inputs or outputs"
        if len(self.inputs[0].shape) != 4 or len(self.outputs[0].shape) < 2:
            return f"its input is {self.inputs[0].shape}, its output {self.outputs[0].shape}"
        if self.scale.size not in (1, self.classes):
            return f"it has {self.scale.size} scales for {self.classes} classes"
        return ""


def read_compiled(path: Path) -> tuple[Compiled, ...]:
    """Read the models in a .bin; empty if the file cannot be read this way.

    Raises:
        OSError: the file cannot be read.

    """
    try:
        return parse_compiled(mapped(path))
    except (ValueError, KeyError):
        return ()


def look_at(path: Path) -> str:
    """Guess the kind of a file that cannot be loaded, for the error message."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(_BARE_PROGRAM):
        return "it is the bare program for the BPU (.hbm): use the .bin that it was compiled into"
    if b"pytorch" in head or b"onnx" in head:
        return "it is an ONNX file: compile it (repghost quantize), or name it .onnx"
    return "is it whole, and compiled for bayes-e?"


def parse_compiled(content: memoryview) -> tuple[Compiled, ...]:
    """Return the models in a .bin.

    Raises:
        ValueError: it is not such a file, or damaged.
        KeyError: likewise.

    """
    models, settings = [], {}
    for field, value in fields(content):
        if field == _GRAPH:
            models.append(_read_graph(message(value)))
        elif field == _SETTINGS:
            one = _read_settings(message(value))
            settings[one.get("MODEL_PREFIX", "")] = one
    # The compiler names a model after the prefix of its files.
    only = next(iter(settings.values()), {}) if len(models) == 1 else {}
    return tuple(replace(model, settings=settings.get(model.name, only)) for model in models)


def _read_graph(graph: memoryview) -> Compiled:
    parts: dict[int, list[Value]] = {}
    for field, value in fields(graph):
        parts.setdefault(field, []).append(value)
    tensors = [dict(fields(message(value))) for value in parts.get(_TENSORS, [])]
    program, scale = memoryview(b""), np.ones(1, np.float32)
    for tensor in tensors:
        name = text(tensor.get(_TENSOR_NAME, memoryview(b"")))
        if name == _PROGRAM:
            program = message(tensor[_TENSOR_BYTES])
        elif name.endswith(_SCALE_SUFFIX):
            scale = np.frombuffer(message(tensor[_TENSOR_FLOATS]), np.float32)
    nodes = [dict(fields(message(value))) for value in parts.get(_NODES, [])]
    operators = [
        (
            text(node.get(_NODE_NAME, memoryview(b""))),
            text(node.get(_NODE_OPERATOR, memoryview(b""))),
        )
        for node in nodes
    ]
    kinds = message(parts.get(_KINDS, [memoryview(b"")])[-1])
    return Compiled(
        name=text(parts[_NAME][-1]),
        inputs=tuple(_read_port(message(value)) for value in parts[_INPUTS]),
        outputs=tuple(_read_port(message(value)) for value in parts[_OUTPUTS]),
        takes_nv12=set(kinds) == {_NV12},
        bpu_parts=tuple(name for name, operator in operators if operator == _ON_BPU),
        cpu_nodes={
            name: operator
            for name, operator in operators
            if operator not in {*_SCALING, _ON_BPU, ""}
        },
        program=program,
        scale=scale,
        settings={},
    )


def _read_port(port: memoryview) -> Port:
    found = dict(fields(port))
    shape = numbers(message(dict(fields(message(found[2])))[2]))
    if not shape:
        raise ValueError("a tensor without a shape")
    return Port(text(found[1]), tuple(shape))


def _read_settings(settings: memoryview) -> dict[str, str]:
    pairs = (dict(fields(message(value))) for _, value in fields(settings))
    # A list with one entry per input, each followed by a semicolon.
    return {text(pair[1]): text(pair[2]).strip(" ;") for pair in pairs if 2 in pair}
