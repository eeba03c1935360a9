# SPDX-License-Identifier: Apache-2.0
"""ONNX files and graphs: read with clear errors, inspected, written atomically."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, OutputError, need
from repghost_ros.output import whole_file

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_QUANTIZED_PREFIXES = ("QLinear", "QGemm", "QAttention", "Hz")
_QUANTIZED_SUFFIX = "Integer"


def load(path: Path) -> Any:
    """Read an .onnx file with its weights, internal or external.

    Weights that are inputs of the graph as well, as old exporters write them, are no longer inputs
    of the returned onnx.ModelProto: nobody feeds them, and an optimizer may not touch an input.

    Raises:
        ConversionError: the file is missing or not an ONNX model.
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    if not path.is_file():
        raise ConversionError(f"model file '{path}' does not exist")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own, and errors from reading external weights
        raise ConversionError(f"'{path}' is not an ONNX model: {error}") from error
    if not model.graph.node:
        raise ConversionError(f"'{path}' is not an ONNX model: it holds no graph")
    weights = {entry.name for entry in model.graph.initializer}
    images = [entry for entry in model.graph.input if entry.name not in weights]
    if len(images) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(images)
        model.ir_version = max(model.ir_version, 4)  # before, weights had to be inputs
    return model


def opset(model: Any) -> int:
    """Return the version of ONNX's own operators that an onnx.ModelProto uses."""
    return max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=1)


def constants(graph: Any) -> dict[str, np.ndarray]:
    """Return the constant values of an onnx.GraphProto, by name.

    Raises:
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    values = {e.name: onnx.numpy_helper.to_array(e) for e in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in values:
            # Exporters write equal weights once and share them this way.
            values[node.output[0]] = values[node.input[0]]
    return values


def attributes_of(node: Any) -> dict[str, Any]:
    """Return the values of an onnx.NodeProto's attributes, by name.

    Raises:
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def names_used(graph: Any) -> Iterator[str]:
    """Yield the names of tensors, once per use, in subgraphs too."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from names_used(inner)


def copy_of(model: Any) -> Any:
    """Copy an onnx.ModelProto."""
    copied = type(model)()
    copied.CopyFrom(model)
    return copied


def remove_unused(graph: Any) -> None:
    """Drop the weights and constant nodes of an onnx.GraphProto that nothing reads any more."""
    used = set(names_used(graph))
    nodes = [
        node
        for node in graph.node
        if node.op_type not in ("Constant", "Identity") or used.intersection(node.output)
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = set(names_used(graph))
    unused = {entry.name for entry in graph.initializer} - used
    for kept in (graph.initializer, graph.input, graph.value_info):
        entries = [entry for entry in kept if entry.name not in unused]
        del kept[:]
        kept.extend(entries)
    made = {name for node in graph.node for name in node.output}
    known = [entry for entry in graph.value_info if entry.name in made]
    del graph.value_info[:]
    graph.value_info.extend(known)


def is_quantized(model: Any) -> bool:
    """Tell if an onnx.ModelProto computes with 8-bit integers, by any toolchain."""
    return any(
        node.op_type in _QUANTIZED
        or node.op_type.startswith(_QUANTIZED_PREFIXES)
        or node.op_type.endswith(_QUANTIZED_SUFFIX)
        for node in model.graph.node
    )


def refuse_quantized(model: Any, name: str = "the model") -> None:
    """Refuse an already quantized model.

    Raises:
        ConversionError: it is quantized.

    """
    if is_quantized(model):
        raise ConversionError(f"{name} is already quantized: give the float model it was made from")


def fixed_shape(image: Any, path: Path) -> tuple[int, ...]:
    """Return the shape of an input, an onnx.ValueInfoProto, with 1 for a batch that is not fixed.

    Raises:
        ConversionError: another dimension is not fixed.

    """
    dimensions = image.type.tensor_type.shape.dim
    shape = [dimension.dim_value for dimension in dimensions]
    if not shape or 0 in shape[1:]:
        shown = [dimension.dim_value or dimension.dim_param or "?" for dimension in dimensions]
        raise ConversionError(
            f"input '{image.name}' of '{path}' has no fixed size: {shown}; export it with one"
        )
    return (shape[0] or 1, *shape[1:])


def save(model: Any, path: Path) -> None:
    """Write an onnx.ModelProto as one file, atomically.

    Raises:
        OutputError: it cannot be written there.
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    try:
        with whole_file(path) as partial:
            onnx.save(model, partial)
    except ValueError as error:  # larger than a protobuf may be
        raise OutputError(f"'{path}' cannot be written: {error}") from error
