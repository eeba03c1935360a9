# SPDX-License-Identifier: Apache-2.0
"""Re-parameterization of an ONNX graph: branches that one layer can compute are merged into it.

A batch normalization is a convolution with one weight per channel, and convolutions of the same tensor
whose results are added are one convolution with the sum of their kernels (RepVGG, arXiv 2101.03697,
section 3.3). The same holds for matrix products (the heads of RepViT, arXiv 2307.09283), for a factor
or an offset per channel (the layer scale of FastViT, arXiv 2303.14189) and for differences. Networks
that are trained with such branches compute the same without them, with fewer passes over memory. Only
numpy and onnx are needed; checking the result takes ONNX Runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, need
from repghost_ros.graphs.graph import (
    attributes_of,
    constants,
    copy_of,
    fixed_shape,
    load,
    names_used,
    refuse_quantized,
    remove_unused,
    save,
)

TOLERANCE = 1e-4
"""Largest change of a logit that fusing may make, relative to the largest logit."""
_RANDOM = 4  # random inputs that the fused model is compared on


@dataclass(frozen=True)
class Fused:
    """The written file, and how far it is from the original model."""

    path: Path
    nodes_before: int
    nodes: int
    parameters_before: int
    parameters: int
    inputs: int
    """Random inputs and pictures that both models were compared on."""
    drift: float
    """Largest change of a logit, relative to the largest logit."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A tensor as one convolution or matrix product of another, and the nodes that compute it now."""

    source: str
    kernel: np.ndarray
    """float64 (outputs, inputs / group, height, width); of a matrix product (outputs, inputs)."""
    bias: np.ndarray
    """float64 (outputs,)."""
    group: int = 1
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    """Padding above and left."""
    after: tuple[int, ...] = ()
    """Padding below and right."""
    nodes: tuple[int, ...]
    """Their indices in the graph, the one that makes the tensor last."""

    @property
    def inputs(self) -> int:
        """Channels of the source."""
        return self.kernel.shape[1] * self.group

    @property
    def is_pointwise(self) -> bool:
        """True if it only scales and shifts its source, channel by channel."""
        return self.group == len(self.kernel) == self.kernel.size and set(self.strides) == {1}

    @property
    def reach(self) -> tuple[int, ...]:
        """Change of height and width by padding and kernel: equal for tensors of equal shape."""
        return tuple(
            before + after - dilation * (size - 1)
            for before, after, dilation, size in zip(
                self.before, self.after, self.dilations, self.kernel.shape[2:], strict=True
            )
        )

    def mapped(self, scale: np.ndarray, offset: np.ndarray, node: int) -> _Layer:
        """Return the layer followed by a factor and an offset per output."""
        return replace(
            self,
            kernel=self.kernel * scale.reshape(-1, *[1] * (self.kernel.ndim - 1)),
            bias=self.bias * scale + offset,
            nodes=(*self.nodes, node),
        )


def fuse(model: Any) -> Any:
    """Return the same function with its branches and normalizations fused into single layers.

    Branches are fused if the one layer has no more weights than they have together. Other nodes stay
    as they are.

    Args:
        model: an onnx.ModelProto with float32 weights.

    Returns:
        a new onnx.ModelProto with the same inputs, outputs and metadata.

    Raises:
        ConversionError: the model is already quantized.
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    refuse_quantized(model)
    fusable = _Search(model.graph).run()
    fused = copy_of(model)
    graph = fused.graph
    replaced = {index: tensor for tensor, found in fusable.items() for index in found.nodes}
    del graph.node[:]
    for index, node in enumerate(model.graph.node):
        tensor = replaced.get(index)
        if tensor is None:
            graph.node.append(node)
        elif index == fusable[tensor].nodes[-1]:
            graph.node.append(_write(fusable[tensor], node, graph))
    remove_unused(graph)
    onnx.checker.check_model(fused, full_check=True)
    return fused


def is_fused(model: Any) -> bool:
    """Tell if `fuse` would leave an onnx.ModelProto as it is."""
    return not _Search(model.graph).run()


def fuse_file(source: Path, path: Path, pictures: Iterable[np.ndarray] = ()) -> Fused:
    """Fuse an .onnx file into another, compare the two, and keep the result if they agree.

    Args:
        source: the model, of one input.
        path: the file to write; it is written atomically and may be the source itself.
        pictures: real inputs to compare on besides random ones, float32 of the model's input shape
            with a batch of one.

    Raises:
        ConversionError: the file is not such a model, it is already quantized, its input has no fixed
            size, or the fused model answers differently.
        DependencyError: onnx or ONNX Runtime is missing.
        OutputError: the result cannot be written.

    """
    model = load(source)
    image = _image(model, source)
    fused = fuse(model)
    inputs = [*_random_inputs(fixed_shape(image, source)), *pictures]
    drift = drift_of(model, fused, image.name, inputs)
    if not drift <= TOLERANCE:  # not a number, too
        raise ConversionError(
            f"'{source}' fused answers differently, by {drift:.1e} of the largest logit where "
            f"{TOLERANCE:.0e} is allowed, so it was not kept: use the original"
        )
    save(fused, path)
    return Fused(
        path,
        len(model.graph.node),
        len(fused.graph.node),
        _parameters(model),
        _parameters(fused),
        len(inputs),
        drift,
    )


class _Search:
    """Finds the tensors of an onnx.GraphProto that one layer can compute instead of several nodes."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._weights = constants(graph)
        self._uses = Counter(names_used(graph))
        self._found: dict[str, _Layer] = {}

    def run(self) -> dict[str, _Layer]:
        """Return the layers by the tensor that they compute."""
        rules: dict[str, Callable[[Any, int], _Layer | None]] = {
            "Conv": self._convolution,
            "Gemm": self._product,
            "BatchNormalization": self._normalization,
            "Add": self._sum,
            "Sub": self._sum,
            "Mul": self._scaling,
            "Div": self._scaling,
        }
        weighted = set()
        for index, node in enumerate(self._graph.node):
            if node.op_type in ("Conv", "Gemm"):
                weighted.add(index)
            layer = rules[node.op_type](node, index) if node.op_type in rules else None
            if layer is not None:
                self._found[node.output[0]] = layer
        return {
            tensor: layer
            for tensor, layer in self._found.items()
            # A lone normalization may apply to tensors that are not images.
            if layer.nodes[1:] and weighted.intersection(layer.nodes)
        }

    def _floats(self, names: Iterable[str]) -> list[np.ndarray] | None:
        """Return constants as float64; None if one is computed, or not float32."""
        values = [self._weights.get(name) for name in names if name]
        if any(value is None or value.dtype != np.float32 for value in values):
            return None
        return [np.asarray(value, np.float64) for value in values]

    def _unshared(self, name: str) -> _Layer | None:
        """Return the layer of a tensor that is used once, so that it need not be computed."""
        return self._found.get(name) if self._uses[name] == 1 else None

    def _convolution(self, node: Any, index: int) -> _Layer | None:
        values = self._floats(node.input[1:])
        attributes = attributes_of(node)
        if not values or values[0].ndim != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            return None
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        return _Layer(
            source=node.input[0],
            kernel=values[0],
            bias=values[1] if values[1:] else np.zeros(len(values[0])),
            group=attributes.get("group", 1),
            strides=tuple(attributes.get("strides", (1, 1))),
            dilations=tuple(attributes.get("dilations", (1, 1))),
            before=(top, left),
            after=(bottom, right),
            nodes=(index,),
        )

    def _product(self, node: Any, index: int) -> _Layer | None:
        """Read a Gemm, after a normalization of its source if there is one."""
        values = self._floats(node.input[1:])
        attributes = attributes_of(node)
        if not values or attributes.get("transA"):
            return None
        kernel = values[0] if attributes.get("transB") else values[0].T
        bias = values[1] if values[1:] else np.zeros(len(kernel))
        if bias.size not in (1, len(kernel)):
            return None
        layer = _Layer(
            source=node.input[0],
            kernel=kernel * attributes.get("alpha", 1.0),
            bias=np.broadcast_to(bias.reshape(-1), len(kernel)) * attributes.get("beta", 1.0),
            nodes=(index,),
        )
        inner = self._unshared(layer.source)
        if inner is None or not inner.is_pointwise:
            return layer
        del self._found[layer.source]
        return replace(
            layer,
            source=inner.source,
            kernel=layer.kernel * inner.kernel.reshape(-1),
            bias=layer.bias + layer.kernel @ inner.bias,
            nodes=(*inner.nodes, index),
        )

    def _normalization(self, node: Any, index: int) -> _Layer | None:
        """Read a batch normalization after a layer, or alone as a depthwise 1x1 convolution."""
        values = self._floats(node.input[1:])
        attributes = attributes_of(node)
        if values is None or attributes.get("training_mode") or len(node.output) != 1:
            return None
        scale, offset, mean, variance = values
        scale = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        offset = offset - mean * scale
        inner = self._unshared(node.input[0])
        if inner is None:
            return _pointwise(node.input[0], scale, offset, index)
        del self._found[node.input[0]]
        return inner.mapped(scale, offset, index)

    def _scaling(self, node: Any, index: int) -> _Layer | None:
        """Read a layer times, or divided by, a constant per channel."""
        name, factor = node.input
        if node.op_type == "Mul" and name in self._weights:
            name, factor = factor, name
        layer = self._unshared(name)
        values = self._per_channel(layer, factor)
        if layer is None or values is None or (node.op_type == "Div" and not values.all()):
            return None
        del self._found[name]
        scale = 1 / values if node.op_type == "Div" else values
        return layer.mapped(scale, np.zeros_like(scale), index)

    def _sum(self, node: Any, index: int) -> _Layer | None:
        """Read a sum or difference of two layers of one tensor, of one and its tensor or a constant."""
        left, right = node.input
        signs = {left: 1.0, right: 1.0 if node.op_type == "Add" else -1.0}
        if left == right:
            return None
        layers = {name: layer for name in node.input if (layer := self._unshared(name))}
        for name, layer in tuple(layers.items()):
            other = right if name == left else left
            offset = self._per_channel(layer, other)
            if offset is not None:
                del self._found[name]
                sign = np.full(len(layer.bias), signs[name])
                return layer.mapped(sign, offset * signs[other], index)
            if other not in layers and other == layer.source and len(layer.kernel) == layer.inputs:
                layers[other] = _pointwise(other, np.ones(layer.inputs), np.zeros(layer.inputs))
        if len(layers) != 2:
            return None
        one, other_one = (
            layer.mapped(np.full(len(layer.bias), signs[name]), np.zeros(len(layer.bias)), index)
            for name, layer in layers.items()
        )
        added = _added(one, other_one)
        if added is not None:
            for name in layers:
                if self._uses[name] == 1:
                    self._found.pop(name, None)
        return added

    def _per_channel(self, layer: _Layer | None, name: str) -> np.ndarray | None:
        """Return a constant as one value per output of a layer; None if it varies otherwise."""
        values = self._floats([name])
        if layer is None or not values or values[0].ndim > layer.kernel.ndim:
            return None
        shape = (*[1] * (layer.kernel.ndim - values[0].ndim), *values[0].shape)
        outputs = len(layer.kernel)
        if shape[1] not in (1, outputs) or values[0].size != shape[1]:
            return None
        return np.broadcast_to(values[0].reshape(-1), outputs)


def _pointwise(source: str, scale: np.ndarray, bias: np.ndarray, *nodes: int) -> _Layer:
    return _Layer(
        source=source,
        kernel=scale.reshape(-1, 1, 1, 1),
        bias=bias,
        group=len(scale),
        strides=(1, 1),
        dilations=(1, 1),
        before=(0, 0),
        after=(0, 0),
        nodes=nodes,
    )


def _added(one: _Layer, other: _Layer) -> _Layer | None:
    """Return both as one layer, or None if that is impossible or would be slower."""
    if (one.source, one.inputs, one.kernel.ndim) != (other.source, other.inputs, other.kernel.ndim):
        return None
    if len(one.kernel) != len(other.kernel) or one.strides != other.strides:
        return None
    dilations = _common_dilations(one, other)
    if dilations is None:
        return None
    one, other = (replace(layer, dilations=dilations) for layer in (one, other))
    window = _common_window(one, other)
    if window is None:
        return None
    before, size = window
    group = int(np.gcd(one.group, other.group))
    kernel = np.zeros((len(one.kernel), one.inputs // group, *size))
    if kernel.size > one.kernel.size + other.kernel.size:
        return None
    for layer in (one, other):
        grouped = _regrouped(layer.kernel, layer.group, group)
        starts = ((b - own) // d for b, own, d in zip(before, layer.before, dilations))
        window_of_own = tuple(slice(at, at + n) for at, n in zip(starts, grouped.shape[2:]))
        kernel[(slice(None), slice(None), *window_of_own)] += grouped
    spans = (d * (n - 1) for d, n in zip(dilations, size))
    return replace(
        one,
        kernel=kernel,
        bias=one.bias + other.bias,
        group=group,
        before=before,
        after=tuple(reach - b + span for reach, b, span in zip(one.reach, before, spans)),
        nodes=tuple(sorted({*one.nodes, *other.nodes})),
    )


def _common_dilations(one: _Layer, other: _Layer) -> tuple[int, ...] | None:
    """Return dilations that fit both kernels: that of a side of one weight is meaningless."""
    dilations = []
    for axis in range(len(one.dilations)):
        own = {c.dilations[axis] for c in (one, other) if c.kernel.shape[2 + axis] > 1}
        if len(own) > 1:
            return None
        dilations.append(own.pop() if own else 1)
    return tuple(dilations)


def _common_window(one: _Layer, other: _Layer) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return padding above and left, and size, of the smallest kernel that holds both; None if none.

    The layers have the same dilations.
    """
    if one.reach != other.reach:
        return None
    before, sizes = [], []
    for axis, dilation in enumerate(one.dilations):
        starts = [layer.before[axis] for layer in (one, other)]
        ends = [
            dilation * (layer.kernel.shape[2 + axis] - 1) - layer.before[axis]
            for layer in (one, other)
        ]
        start, span = max(starts), max(starts) + max(ends)
        if span % dilation or any((start - own) % dilation for own in starts):
            return None
        before.append(start)
        sizes.append(span // dilation + 1)
    return tuple(before), tuple(sizes)


def _regrouped(kernel: np.ndarray, group: int, wanted: int) -> np.ndarray:
    """Return the kernel of the same convolution with fewer groups, padded with zeros."""
    outputs, inputs = kernel.shape[:2]
    wide = np.zeros((outputs, inputs * group // wanted, *kernel.shape[2:]))
    for output in range(outputs):
        own = output * group // outputs * inputs
        first = own - output * wanted // outputs * wide.shape[1]
        wide[output, first : first + inputs] = kernel[output]
    return wide


def _write(layer: _Layer, node: Any, graph: Any) -> Any:
    """Make a node instead of the last node that a layer replaces; add its weights to the graph."""
    onnx = need("onnx", "pip install onnx")
    tensor = node.output[0]
    inputs = [layer.source]
    for part, value in (("kernel", layer.kernel), ("bias", layer.bias)):
        if value.any() or part == "kernel":
            inputs.append(f"{tensor}/{part}")
            weights = onnx.numpy_helper.from_array(value.astype(np.float32), inputs[-1])
            graph.initializer.append(weights)
    if layer.kernel.ndim == 2:
        return onnx.helper.make_node("Gemm", inputs, [tensor], node.name, transB=1)
    return onnx.helper.make_node(
        "Conv",
        inputs,
        [tensor],
        node.name,
        group=layer.group,
        kernel_shape=layer.kernel.shape[2:],
        strides=layer.strides,
        dilations=layer.dilations,
        pads=(*layer.before, *layer.after),
    )


def _parameters(model: Any) -> int:
    return sum(int(np.prod(entry.dims)) for entry in model.graph.initializer)


def _image(model: Any, source: Path) -> Any:
    """Return the one input of a model read by `load`."""
    inputs = model.graph.input
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs)
        raise ConversionError(f"'{source}' has {len(inputs)} inputs ({names}): one is expected")
    return inputs[0]


def _random_inputs(shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for _ in range(_RANDOM)]


def drift_of(model: Any, fused: Any, name: str, inputs: Sequence[np.ndarray]) -> float:
    """Return the largest difference of an output, relative to the largest output.

    Args:
        model: an onnx.ModelProto of one input and one output.
        fused: another, compared with it.
        name: of their input.
        inputs: compared on.

    Raises:
        ConversionError: ONNX Runtime cannot run one of them.
        DependencyError: ONNX Runtime is missing.

    """
    onnxruntime = need("onnxruntime", "pip install onnxruntime")
    try:
        before, after = (
            onnxruntime.InferenceSession(
                network.SerializeToString(), providers=["CPUExecutionProvider"]
            )
            for network in (model, fused)
        )
        pairs = [
            (before.run(None, {name: image})[0], after.run(None, {name: image})[0])
            for image in inputs
        ]
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise ConversionError(f"ONNX Runtime cannot run the model: {error}") from error
    largest = max(float(np.abs(truth).max()) for truth, _ in pairs)
    difference = max(float(np.abs(answer - truth).max()) for truth, answer in pairs)
    return difference / largest if largest else difference
