# SPDX-License-Identifier: Apache-2.0
"""Re-parameterization of an ONNX graph: branches that a convolution can compute are merged into it.

A batch normalization is a convolution with one weight per channel, and convolutions of the same tensor
whose results are added are one convolution with the sum of their kernels (RepVGG, arXiv 2101.03697,
section 3.3). RepGhost is trained with such branches; without them it computes the same
with fewer passes over memory. Only numpy and onnx are needed; checking the result takes ONNX Runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True)
class _Convolution:
    """A tensor as one convolution of another, and the nodes that compute it now."""

    source: str
    kernel: np.ndarray
    """float64 (outputs, inputs / group, height, width)."""
    bias: np.ndarray
    """float64 (outputs,)."""
    group: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    """Padding above and left."""
    after: tuple[int, int]
    """Padding below and right."""
    nodes: tuple[int, ...]
    """Their places in the graph, the one that makes the tensor last."""

    @property
    def inputs(self) -> int:
        """Channels of the source."""
        return self.kernel.shape[1] * self.group

    @property
    def reach(self) -> tuple[int, ...]:
        """How padding and kernel change height and width: equal for tensors of equal shape."""
        return tuple(
            before + after - dilation * (size - 1)
            for before, after, dilation, size in zip(
                self.before, self.after, self.dilations, self.kernel.shape[2:], strict=True
            )
        )


def fuse(model: Any) -> Any:
    """The same function with its branches and batch normalizations fused into convolutions.

    Branches are fused if the one convolution has no more weights than they have together. Other
    nodes stay as they are.

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
    fusable = _fusable(model.graph)
    fused = copy_of(model)
    graph = fused.graph
    replaced = {place: tensor for tensor, found in fusable.items() for place in found.nodes}
    del graph.node[:]
    for place, node in enumerate(model.graph.node):
        tensor = replaced.get(place)
        if tensor is None:
            graph.node.append(node)
        elif place == fusable[tensor].nodes[-1]:
            graph.node.append(_write(fusable[tensor], node, graph))
    remove_unused(graph)
    onnx.checker.check_model(fused, full_check=True)
    return fused


def is_fused(model: Any) -> bool:
    """Whether `fuse` would leave an onnx.ModelProto as it is."""
    return not _fusable(model.graph)


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


def _fusable(graph: Any) -> dict[str, _Convolution]:
    """Tensors that one convolution can compute instead of several nodes."""
    weights = constants(graph)
    uses = Counter(names_used(graph))
    found: dict[str, _Convolution] = {}
    for place, node in enumerate(graph.node):
        convolution = None
        if node.op_type == "Conv":
            convolution = _of_conv(node, place, weights)
        elif node.op_type == "BatchNormalization":
            convolution = _of_norm(node, place, weights)
            inner = found.get(node.input[0])
            if convolution and inner and uses[node.input[0]] == 1:
                del found[node.input[0]]
                convolution = _normalised(inner, convolution)
        elif node.op_type == "Add":
            convolution = _of_sum(node, place, found, uses)
        if convolution is not None:
            found[node.output[0]] = convolution
    convolutions = {place for place, node in enumerate(graph.node) if node.op_type == "Conv"}
    return {
        tensor: convolution
        for tensor, convolution in found.items()
        # A lone normalization may apply to tensors that are not images.
        if convolution.nodes[1:] and convolutions.intersection(convolution.nodes)
    }


def _of_conv(node: Any, place: int, weights: dict[str, np.ndarray]) -> _Convolution | None:
    values = [weights.get(name) for name in node.input[1:] if name]
    if any(value is None or value.dtype != np.float32 for value in values):
        return None
    kernel = np.asarray(values[0], np.float64)
    attributes = attributes_of(node)
    if kernel.ndim != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    bias = np.asarray(values[1], np.float64) if values[1:] else np.zeros(len(kernel))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return _Convolution(
        node.input[0],
        kernel,
        bias,
        attributes.get("group", 1),
        tuple(attributes.get("strides", (1, 1))),
        tuple(attributes.get("dilations", (1, 1))),
        (top, left),
        (bottom, right),
        (place,),
    )


def _of_norm(node: Any, place: int, weights: dict[str, np.ndarray]) -> _Convolution | None:
    """A batch normalization as a depthwise 1x1 convolution."""
    values = [weights.get(name) for name in node.input[1:]]
    attributes = attributes_of(node)
    if attributes.get("training_mode") or len(node.output) != 1:
        return None
    if any(value is None or value.dtype != np.float32 for value in values):
        return None
    scale, offset, mean, variance = (np.asarray(value, np.float64) for value in values)
    scale = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return _pointwise(node.input[0], scale, offset - mean * scale, place)


def _pointwise(source: str, scale: np.ndarray, bias: np.ndarray, *places: int) -> _Convolution:
    kernel = scale.reshape(-1, 1, 1, 1)
    return _Convolution(source, kernel, bias, len(scale), (1, 1), (1, 1), (0, 0), (0, 0), places)


def _normalised(inner: _Convolution, norm: _Convolution) -> _Convolution:
    """A convolution followed by a batch normalization."""
    scale = norm.kernel.reshape(-1)
    return replace(
        inner,
        kernel=inner.kernel * scale.reshape(-1, 1, 1, 1),
        bias=inner.bias * scale + norm.bias,
        nodes=(*inner.nodes, *norm.nodes),
    )


def _of_sum(
    node: Any, place: int, found: dict[str, _Convolution], uses: Counter[str]
) -> _Convolution | None:
    """The sum of two convolutions of the same tensor, or of one convolution and that tensor."""
    left, right = node.input
    branches = [found[name] for name in (left, right) if name in found and uses[name] == 1]
    if len(branches) == 1:
        branch = branches[0]
        other = left if found.get(right) is branch else right
        if other == branch.source:
            ones = np.ones(branch.inputs)
            branches.append(_pointwise(other, ones, np.zeros_like(ones)))
    if len(branches) != 2:
        return None
    added = _added(branches[0], branches[1], place)
    if added is not None:
        for name in (left, right):
            if uses[name] == 1:
                found.pop(name, None)
    return added


def _added(one: _Convolution, other: _Convolution, place: int) -> _Convolution | None:
    """Both as one convolution, or None if that is impossible or would be slower."""
    sizes = one.kernel.shape[2:], other.kernel.shape[2:]
    if (one.source, one.inputs, len(one.kernel)) != (other.source, other.inputs, len(other.kernel)):
        return None
    if one.strides != other.strides:
        return None
    dilations = []
    for axis in (0, 1):
        # For a 1x1 kernel the dilation is meaningless.
        own = {c.dilations[axis] for c, size in zip((one, other), sizes) if size[axis] > 1}
        if len(own) > 1:
            return None
        dilations.append(own.pop() if own else 1)
    one, other = (
        replace(convolution, dilations=(dilations[0], dilations[1])) for convolution in (one, other)
    )
    if one.reach != other.reach:
        return None
    before = tuple(map(max, one.before, other.before))
    ends = [
        [d * (size - 1) - b for d, size, b in zip(dilations, c.kernel.shape[2:], c.before)]
        for c in (one, other)
    ]
    spans = [max(pair) + b for pair, b in zip(zip(*ends), before)]
    if any(
        (b - own) % d for c in (one, other) for b, own, d in zip(before, c.before, dilations)
    ) or any(span % d for span, d in zip(spans, dilations)):
        return None
    size = [span // d + 1 for span, d in zip(spans, dilations)]
    group = int(np.gcd(one.group, other.group))
    kernel = np.zeros((len(one.kernel), one.inputs // group, *size))
    if kernel.size > one.kernel.size + other.kernel.size:
        return None
    for convolution in (one, other):
        grouped = _regrouped(convolution.kernel, convolution.group, group)
        y, x = ((b - own) // d for b, own, d in zip(before, convolution.before, dilations))
        kernel[:, :, y : y + grouped.shape[2], x : x + grouped.shape[3]] += grouped
    after = tuple(r - b + s for r, b, s in zip(one.reach, before, spans))
    return _Convolution(
        one.source,
        kernel,
        one.bias + other.bias,
        group,
        one.strides,
        (dilations[0], dilations[1]),
        (before[0], before[1]),
        (after[0], after[1]),
        (*one.nodes, *other.nodes, place),
    )


def _regrouped(kernel: np.ndarray, group: int, wanted: int) -> np.ndarray:
    """The kernel of the same convolution with fewer groups, padded with zeros."""
    outputs, inputs = kernel.shape[:2]
    wide = np.zeros((outputs, inputs * group // wanted, *kernel.shape[2:]))
    for output in range(outputs):
        own = output * group // outputs * inputs
        first = own - output * wanted // outputs * wide.shape[1]
        wide[output, first : first + inputs] = kernel[output]
    return wide


def _write(convolution: _Convolution, node: Any, graph: Any) -> Any:
    """A Conv node in place of the last node it replaces; its weights are added to the graph."""
    onnx = need("onnx", "pip install onnx")
    tensor = node.output[0]
    names = [f"{tensor}/kernel", f"{tensor}/bias"]
    for name, value in zip(names, (convolution.kernel, convolution.bias), strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    return onnx.helper.make_node(
        "Conv",
        [convolution.source, *names],
        [tensor],
        node.name,
        group=convolution.group,
        kernel_shape=convolution.kernel.shape[2:],
        strides=convolution.strides,
        dilations=convolution.dilations,
        pads=(*convolution.before, *convolution.after),
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
                each.SerializeToString(), providers=["CPUExecutionProvider"]
            )
            for each in (model, fused)
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
