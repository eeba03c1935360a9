# SPDX-License-Identifier: Apache-2.0
"""A classifier without its head as a torch function whose weights can be trained and written back.

The ONNX graph itself is run, operator by operator, so that any base model can be fine-tuned and what
comes out is the same graph with other weights: nothing has to be exported again. Norms are folded in
such files; with small steps they are not missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from repghost_ros.errors import ConversionError, need
from repghost_ros.graphs.graph import attributes_of, constants, copy_of, load, save
from repghost_ros.graphs.head import FEATURES, Trunk

INSTALL = "pip install torch"
_TRAINED = ("Conv", "Gemm", "MatMul")
"""Operators whose second and third input are trained."""
Operator = Callable[..., Any]
"""Is called with the inputs, None where one is omitted, and the attributes."""


def _operators() -> dict[str, Operator]:
    """Return ONNX's operators in torch: those of classifiers without their head.

    Raises:
        DependencyError: torch is missing.

    """
    torch = need("torch", INSTALL)
    functional = torch.nn.functional

    def padded(x: Any, pads: list[int], value: float = 0.0) -> Any:
        half = len(pads) // 2
        order = [pads[at + side * half] for at in reversed(range(half)) for side in (0, 1)]
        return functional.pad(x, order, value=value) if any(pads) else x

    def conv(x: Any, kernel: Any, bias: Any = None, **attributes: Any) -> Any:
        x = padded(x, attributes.get("pads", [0] * 4))
        names = ("strides", "stride"), ("dilations", "dilation"), ("group", "groups")
        given = {torch_name: attributes[n] for n, torch_name in names if n in attributes}
        return functional.conv2d(x, kernel, bias, **given)

    def pool(x: Any, **attributes: Any) -> Any:
        x = padded(x, attributes.get("pads", [0] * 4), float("-inf"))
        return functional.max_pool2d(x, attributes["kernel_shape"], attributes.get("strides", 1))

    def reduce_mean(x: Any, given: Any = None, *, axes: Any = None, keepdims: int = 1) -> Any:
        return x.mean(axes if given is None else given.tolist(), keepdim=bool(keepdims))

    def clip(x: Any, low: Any = None, high: Any = None, **attributes: Any) -> Any:
        low = attributes.get("min") if low is None else low
        return x.clamp(low, attributes.get("max") if high is None else high)

    def hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
        return (alpha * x + beta).clamp(0, 1)

    def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, spread: Any, **attributes: Any) -> Any:
        epsilon = attributes.get("epsilon", 1e-5)
        return functional.batch_norm(x, mean, spread, scale, bias, eps=epsilon)

    return {
        "Add": lambda x, y: x + y,
        "BatchNormalization": batch_norm,
        "Clip": clip,
        "Concat": lambda *x, axis: torch.cat(x, axis),
        "Conv": conv,
        "Div": lambda x, y: x / y,
        "Erf": torch.erf,
        "Dropout": lambda x, *_, **__: x,
        "Flatten": lambda x, axis=1: x.flatten(axis),
        "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
        "HardSigmoid": hard_sigmoid,
        "HardSwish": lambda x: x * hard_sigmoid(x, 1 / 6),
        "Identity": lambda x: x,
        "MaxPool": pool,
        "Mul": lambda x, y: x * y,
        "Pad": lambda x, pads, value=None, **_: padded(x, pads.tolist()[2:4] + pads.tolist()[6:]),
        "ReduceMean": reduce_mean,
        "Relu": lambda x: x.clamp(min=0),
        # The first axis is that of the images, which files fix to one.
        "Reshape": lambda x, shape, **_: x.reshape(len(x), *shape.tolist()[1:]),
        "Sigmoid": lambda x: x.sigmoid(),
        "Sub": lambda x, y: x - y,
    }


class Trainable:
    """The trunk in torch.

    Args:
        trunk: it is not changed.
        device: where torch computes.

    Raises:
        ConversionError: the graph has an operator that is not known here.
        DependencyError: torch, onnx or ONNX Runtime is missing.

    """

    def __init__(self, trunk: Trunk, device: str = "cpu") -> None:
        torch = need("torch", INSTALL)
        self._trunk = trunk
        self._model = _folded(trunk.model)
        graph = self._model.graph
        self._operators = _operators()
        unknown = sorted({node.op_type for node in graph.node} - {*self._operators, "Constant"})
        if unknown:
            raise ConversionError(
                f"the base model cannot be fine-tuned, for it has the operators {', '.join(unknown)}: "
                "teach a head alone, without --finetune"
            )
        self._attributes = [attributes_of(node) for node in graph.node]
        self._values = {
            name: torch.tensor(value, device=device) for name, value in constants(graph).items()
        }
        trained = {
            name
            for node in graph.node
            if node.op_type in _TRAINED
            for name in node.input[1:]
            if name in self._values
        }
        self.weights: dict[str, Any] = {
            name: self._values[name].requires_grad_() for name in sorted(trained)
        }
        """What is trained: torch tensors by name."""

    def __call__(self, images: Any) -> Any:
        """Return the features of images: torch float32 (images, features).

        Args:
            images: torch float32 (images, 3, height, width), normalized as the model wants them.

        """
        graph = self._model.graph
        values = {**self._values, graph.input[0].name: images}
        for node, attributes in zip(graph.node, self._attributes, strict=True):
            if node.op_type != "Constant":
                inputs = [values[name] if name else None for name in node.input]
                made = self._operators[node.op_type](*inputs, **attributes)
                values[node.output[0]] = made
        return values[FEATURES].reshape(len(images), -1)

    def load(self, weights: Mapping[str, Any]) -> None:
        """Take the weights of another moment, as `weights` had them.

        Raises:
            DependencyError: torch is missing.

        """
        torch = need("torch", INSTALL)
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(weights[name])

    def trunk(self) -> Trunk:
        """Return the trunk with the weights as they are now.

        Raises:
            DependencyError: onnx is missing.

        """
        onnx = need("onnx", "pip install onnx")
        model = copy_of(self._model)
        kept = [each for each in model.graph.initializer if each.name not in self.weights]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        for name, value in self.weights.items():
            array = value.detach().cpu().numpy()
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return Trunk(model, self._trunk.features)


def _folded(model: Any) -> Any:
    """Return the model with what is constant computed, such as the sizes that exporters calculate.

    Raises:
        DependencyError: ONNX Runtime is missing.

    """
    onnxruntime = need("onnxruntime", "pip install onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory(prefix="repghost_") as folder:
        path, folded = Path(folder, "trunk.onnx"), Path(folder, "folded.onnx")
        save(model, path)
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        made = load(folded)
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return made
