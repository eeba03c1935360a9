# SPDX-License-Identifier: Apache-2.0
"""Read what an ONNX file says of itself, its output and its external weights, without onnx.

An .onnx file is a protobuf message; only names, operators and metadata are read. Field numbers are
those of onnx.proto3.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from repghost_ros.files import sha256
from repghost_ros.output import replacing
from repghost_ros.zoo.protobuf import fields, mapped, message, text

_MODEL_GRAPH, _MODEL_METADATA, _GRAPH_NODE, _GRAPH_OUTPUT = 7, 14, 1, 12
_GRAPH_INITIALIZER, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR, _TENSOR_EXTERNAL = 5, 5, 5, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 1, 2, 4
_PASSES_ON = {
    *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "CastLike"),
    *("QuantizeLinear", "DequantizeLinear", "Dropout", "Clip"),
}
"""Operators that leave the values of their first input as they are, or nearly."""
_SOFTMAX = {"Softmax", "QLinearSoftmax"}
_SIGMOID = {"Sigmoid", "QLinearSigmoid", "HardSigmoid"}
_LINEAR = {
    *("Gemm", "MatMul", "MatMulInteger", "Conv", "ConvInteger", "Add", "LogSoftmax"),
    *("QGemm", "QLinearMatMul", "QLinearConv", "QLinearAdd"),
}
Ending = Literal["softmax", "sigmoid", "linear", "unknown"]
Node = tuple[str, list[str]]
"""An operator and the names of its inputs."""


@dataclass(frozen=True)
class OnnxContent:
    """An ONNX file's records."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    """Names of the graph's outputs."""
    ending: Ending = "unknown"
    """What the graph ends in, decomposed or not; `linear` gives logits, and so does a LogSoftmax, whose
    logarithm softmax undoes."""
    weights: tuple[str, ...] = ()
    """Names of the files of its external weights, such as MODEL.onnx.data, below its folder."""

    def weight_files(self, path: Path) -> list[Path]:
        """Return the files of the external weights of the model at a path."""
        return [path.parent / name for name in self.weights]


EMPTY = OnnxContent()
"""Of a file that cannot be read as ONNX."""


def parse_onnx(content: memoryview) -> OnnxContent:
    """Return what an ONNX file says of itself; nothing if it cannot be read."""
    metadata: dict[str, str] = {}
    outputs: list[str] = []
    nodes: dict[str, Node] = {}
    weights: set[str] = set()
    try:
        for number, value in fields(content):
            if number == _MODEL_METADATA:
                entry = dict(fields(message(value)))
                metadata[text(entry[_ENTRY_KEY])] = text(entry[_ENTRY_VALUE])
            elif number == _MODEL_GRAPH:
                for part, inner in fields(message(value)):
                    if part == _GRAPH_OUTPUT:
                        outputs += _texts(message(inner), _VALUE_NAME)
                    elif part == _GRAPH_INITIALIZER:
                        weights.update(_locations(message(inner)))
                    elif part == _GRAPH_NODE:
                        _read_node(message(inner), nodes, weights)
    except (ValueError, KeyError):
        return EMPTY
    ending = _ending(nodes, outputs[0]) if outputs else "unknown"
    return OnnxContent(metadata, tuple(outputs), ending, tuple(sorted(weights)))


def model_files(path: Path) -> tuple[Path, ...]:
    """Return the files that a model consists of: itself first, then those of its external weights.

    Of a file that cannot be read as ONNX, only itself.
    """
    if path.suffix.lower() != ".onnx":
        return (path,)
    try:
        content = mapped(path)
    except (OSError, ValueError):
        return (path,)
    return (path, *parse_onnx(content).weight_files(path))


def model_sha256(path: Path) -> str:
    """Return the SHA-256 of a model in hexadecimal; of several files, over theirs.

    Raises:
        OSError: a file cannot be read.

    """
    digests = [sha256(file) for file in model_files(path)]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def model_bytes(path: Path) -> int:
    """Return the size of a model's files in bytes.

    Raises:
        OSError: a file is missing.

    """
    return sum(file.stat().st_size for file in model_files(path))


def copy_model(path: Path, copy: Path) -> None:
    """Copy a model's files; those of external weights go beside the copy under their own names.

    Raises:
        OSError: a file cannot be read or written.

    """
    for file in model_files(path):
        target = copy if file == path else copy.parent / file.relative_to(path.parent)
        with replacing(target) as partial:
            shutil.copyfile(file, partial)


def _read_node(node: memoryview, nodes: dict[str, Node], weights: set[str]) -> None:
    """Add a node under the names of its outputs, and the files of the constants in it."""
    (operator,) = _texts(node, _NODE_OPERATOR)[:1] or [""]
    nodes |= dict.fromkeys(_texts(node, _NODE_OUTPUT), (operator, _texts(node, _NODE_INPUT)))
    for attribute in _messages(node, _NODE_ATTRIBUTE):
        for tensor in _messages(attribute, _ATTRIBUTE_TENSOR):
            weights.update(_locations(tensor))


def _locations(tensor: memoryview) -> Iterator[str]:
    """Yield the name of the file of a tensor's external data; one outside the model's folder is not."""
    for entry in _messages(tensor, _TENSOR_EXTERNAL):
        if _texts(entry, _ENTRY_KEY) == ["location"]:
            (name,) = _texts(entry, _ENTRY_VALUE)
            if not (Path(name).is_absolute() or ".." in Path(name).parts):
                yield name


def _messages(content: memoryview, wanted: int) -> Iterator[memoryview]:
    return (message(value) for number, value in fields(content) if number == wanted)


def _ending(nodes: dict[str, Node], output: str) -> Ending:
    node = _maker(nodes, output)[1]
    if node is None:
        return "unknown"
    operator, inputs = node
    makers = [_maker(nodes, name)[1] for name in inputs]
    operators = tuple(maker[0] if maker else "" for maker in makers)
    if operator in _SOFTMAX or (operator, operators) in (
        ("Exp", ("LogSoftmax",)),
        ("Div", ("Exp", "ReduceSum")),  # exp(x) / sum(exp(x))
    ):
        return "softmax"
    if operator in _SIGMOID:
        return "sigmoid"
    return "linear" if operator in _LINEAR else "unknown"


def _maker(nodes: dict[str, Node], name: str) -> tuple[str, Node | None]:
    """Return the node that makes a value, looking through nodes that only pass it on."""
    for _ in nodes:
        node = nodes.get(name)
        if node is None or node[0] not in _PASSES_ON or not node[1]:
            return name, node
        name = node[1][0]
    return name, nodes.get(name)


def _texts(content: memoryview, wanted: int) -> list[str]:
    return [text(value) for number, value in fields(content) if number == wanted]
