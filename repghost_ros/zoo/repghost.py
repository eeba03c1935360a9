# SPDX-License-Identifier: Apache-2.0
"""RepGhost as an ONNX graph, written from timm's weights without torch.

The network (arXiv 2211.06088, and timm's models/repghost.py, whose names the weights have) follows from
the weights: their names say which layers there are, their shapes how large these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import StoreError, need
from repghost_ros.graphs.fusing import fuse
from repghost_ros.zoo.own import CROP_KEY
from repghost_ros.zoo.record import Preprocessing

_OPSET = 11  # the newest that the vendor's toolchain takes
_EPSILON = 1e-5  # of the batch normalizations
_COUNTER = "num_batches_tracked"  # of training steps


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read a .safetensors file: float32 arrays by name.

    Raises:
        StoreError: the file is damaged or not of that format.
        DependencyError: safetensors is missing.

    """
    safetensors = need("safetensors.numpy", "pip install safetensors")
    try:
        weights = safetensors.load_file(path)
    except Exception as error:  # the package has no common base for its errors
        raise StoreError(f"'{path}' does not hold weights: {error}") from error
    return {
        name: np.asarray(value, np.float32)
        for name, value in weights.items()
        if not name.endswith(_COUNTER)
    }


def as_onnx(weights: Mapping[str, np.ndarray], preprocessing: Preprocessing) -> Any:
    """Return the fused network as an onnx.ModelProto: input `data`, output `logits`.

    Args:
        weights: of a RepGhost with its branches, float32, by timm's names.
        preprocessing: recorded in the model's metadata; its size is that of the input.

    Raises:
        StoreError: these are not the weights of a RepGhost.
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    network = _Network(weights)
    try:
        network.run()
    except (KeyError, IndexError, ValueError) as error:
        raise StoreError(f"these are not the weights of a RepGhost: {error} is missing") from error
    if network.unused:
        raise StoreError(
            f"these are not the weights of a RepGhost: {len(network.unused)} are left, such as "
            f"{min(network.unused)}"
        )

    def value(name: str, shape: tuple[int, ...]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = onnx.helper.make_graph(
        network.nodes,
        "repghost",
        [value("data", (1, 3, preprocessing.height, preprocessing.width))],
        [value("logits", (1, len(weights["classifier.bias"])))],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=6,
        producer_name="repghost_ros",
    )
    numbers = {"mean": preprocessing.mean, "scale": preprocessing.scale}
    recorded = {key: ",".join(map(str, values)) for key, values in numbers.items()}
    recorded[CROP_KEY] = str(preprocessing.crop_share)
    onnx.helper.set_model_props(model, recorded)
    return fuse(model)


class _Network:
    """The nodes of a RepGhost; a method adds a layer, and returns the name of its output."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._helper = need("onnx", "pip install onnx").helper
        self._weights = weights
        self.unused = set(weights)
        self.nodes: list[Any] = []

    def run(self) -> None:
        """Add all layers."""
        tensor = self._node("Relu", [self._conv("data", "conv_stem", "bn1", stride=2)])
        names = {
            tuple(name.split(".")[1:3]) for name in self._weights if name.startswith("blocks.")
        }
        *blocks, last = sorted(names, key=lambda name: tuple(map(int, name)))
        for stage, number in blocks:
            tensor = self._bottleneck(tensor, f"blocks.{stage}.{number}")
        last_block = ".".join(("blocks", *last))
        tensor = self._conv(tensor, f"{last_block}.conv", f"{last_block}.bn1")
        tensor = self._node("GlobalAveragePool", [self._node("Relu", [tensor])])
        tensor = self._node("Relu", [self._conv(tensor, "conv_head")])
        inputs = [self._node("Flatten", [tensor]), *self._take("classifier", "weight", "bias")]
        self._node("Gemm", inputs, output="logits", transB=1)

    def _bottleneck(self, source: str, name: str) -> str:
        tensor = self._node("Relu", [self._ghost(source, f"{name}.ghost1", relu=True)])
        halved = f"{name}.conv_dw.weight" in self._weights
        if halved:
            tensor = self._conv(tensor, f"{name}.conv_dw", f"{name}.bn_dw", stride=2)
        if f"{name}.se.conv_reduce.weight" in self._weights:
            gate = self._node("ReduceMean", [tensor], axes=[2, 3], keepdims=1)
            gate = self._node("Relu", [self._conv(gate, f"{name}.se.conv_reduce")])
            gate = self._conv(gate, f"{name}.se.conv_expand")
            tensor = self._node("Mul", [tensor, self._node("HardSigmoid", [gate], alpha=1 / 6)])
        tensor = self._ghost(tensor, f"{name}.ghost2", relu=False)
        if f"{name}.shortcut.0.weight" in self._weights:
            source = self._conv(
                source, f"{name}.shortcut.0", f"{name}.shortcut.1", stride=2 if halved else 1
            )
            source = self._conv(source, f"{name}.shortcut.2", f"{name}.shortcut.3")
        return self._node("Add", [tensor, source])

    def _ghost(self, source: str, name: str, *, relu: bool) -> str:
        tensor = self._conv(source, f"{name}.primary_conv.0", f"{name}.primary_conv.1")
        if relu:
            tensor = self._node("Relu", [tensor])
        cheap = self._conv(tensor, f"{name}.cheap_operation.0", f"{name}.cheap_operation.1")
        return self._node("Add", [cheap, self._norm(tensor, f"{name}.fusion_bn.0")])

    def _conv(self, source: str, name: str, norm: str = "", *, stride: int = 1) -> str:
        """Add a convolution, depthwise if its weights have one input, and its normalization."""
        (weight,) = self._take(name, "weight")
        bias = self._take(name, "bias") if f"{name}.bias" in self._weights else []
        outputs, inputs, side, _ = self._weights[weight].shape
        tensor = self._node(
            "Conv",
            [source, weight, *bias],
            kernel_shape=[side, side],
            pads=[side // 2] * 4,
            strides=[stride, stride],
            group=outputs if inputs == 1 else 1,
        )
        return self._norm(tensor, norm) if norm else tensor

    def _norm(self, source: str, name: str) -> str:
        parts = self._take(name, "weight", "bias", "running_mean", "running_var")
        return self._node("BatchNormalization", [source, *parts], epsilon=_EPSILON)

    def _take(self, layer: str, *parts: str) -> list[str]:
        """Return the names of a layer's weights, and mark them as used."""
        names = [f"{layer}.{part}" for part in parts]
        for name in names:
            if name not in self._weights:
                raise KeyError(name)
        self.unused -= set(names)
        return names

    def _node(
        self, operator: str, inputs: list[str], *, output: str = "", **attributes: Any
    ) -> str:
        output = output or f"{operator}_{len(self.nodes)}"
        made = self._helper.make_node(operator, inputs, [output], output, **attributes)
        self.nodes.append(made)
        return output
