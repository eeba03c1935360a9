# SPDX-License-Identifier: Apache-2.0
"""Preprocessing inside the graph: turns an RGB classifier into one that takes NV12."""

from __future__ import annotations

from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, need
from repghost_ros.graphs.graph import opset
from repghost_ros.vision.nv12 import rgb_matrix
from repghost_ros.zoo.model_file import COLOR_RANGE_KEY
from repghost_ros.zoo.record import IMAGENET, Preprocessing


def fold_preprocess(
    model: Any, color_range: str = "full", preprocessing: Preprocessing = IMAGENET
) -> Any:
    """Put NV12 -> RGB -> normalization in front of a model, with operators of opset 11.

    The graph computes what the ONNX backend does: RGB rounded to whole levels.

    Args:
        model: an onnx.ModelProto with one input, 1x3xHxW float32 normalized RGB.
        color_range: BT.601 range of the NV12.
        preprocessing: mean and scale of the model.

    Returns:
        an onnx.ModelProto whose input `nv12` is uint8 (H * 3 // 2, W).

    Raises:
        ConversionError: the input is different.
        DependencyError: onnx is missing.

    """
    onnx = need("onnx", "pip install onnx")
    image = model.graph.input[0]
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    if len(model.graph.input) != 1 or len(shape) != 4 or shape[:2] != [1, 3] or 0 in shape:
        raise ConversionError(
            f"the model's input '{image.name}' is {shape}: preprocessing is folded into models that "
            "take one 1x3xHxW image"
        )
    height, width = shape[2:]
    front = _Builder()
    rgb = _rgb(front, height, width, color_range)
    mean, scale = (
        front.constant(name, np.reshape(getattr(preprocessing, name), (1, 3, 1, 1)), np.float32)
        for name in ("mean", "scale")
    )
    front.node("Mul", front.node("Sub", rgb, mean), scale, output=image.name)
    graph = onnx.helper.make_graph(
        [*front.nodes, *model.graph.node],
        model.graph.name,
        [
            onnx.helper.make_tensor_value_info(
                "nv12", onnx.TensorProto.UINT8, [height * 3 // 2, width]
            )
        ],
        list(model.graph.output),
        [*front.constants, *model.graph.initializer],
    )
    folded = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", max(opset(model), 11))],
        ir_version=model.ir_version,
        producer_name="repghost_ros",
    )
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(folded, {**properties, COLOR_RANGE_KEY: color_range})
    onnx.checker.check_model(folded, full_check=True)
    return folded


class _Builder:
    """Nodes and constants of the part in front of the model."""

    def __init__(self) -> None:
        self._onnx = need("onnx", "pip install onnx")
        self.constants: list[Any] = []
        self.nodes: list[Any] = []

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        """Add a constant; returns its name in the graph."""
        array = np.asarray(value, dtype)
        self.constants.append(self._onnx.numpy_helper.from_array(array, f"nv12/{name}"))
        return f"nv12/{name}"

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        output = output or f"nv12/{operator}{len(self.nodes)}"
        made = self._onnx.helper.make_node(operator, list(inputs), [output], output, **attributes)
        self.nodes.append(made)
        return output

    def rows(self, levels: str, first: int, last: int, shape: list[int]) -> str:
        """Cut rows of the NV12 buffer and give them a shape."""
        name = f"rows{first}"
        start, end = (
            self.constant(f"{name}/{edge}", [at], np.int64)
            for edge, at in (("start", first), ("end", last))
        )
        part = self.node("Slice", levels, start, end, self.constant(f"{name}/axis", [0], np.int64))
        return self.node("Reshape", part, self.constant(f"{name}/shape", shape, np.int64))


def _rgb(front: _Builder, height: int, width: int, color_range: str) -> str:
    """Convert the input `nv12` to RGB of whole levels: float32 (1, 3, height, width)."""
    onnx = need("onnx", "pip install onnx")
    levels = front.node("Cast", "nv12", to=onnx.TensorProto.FLOAT)
    luma = front.rows(levels, 0, height, [1, 1, height, width])
    chroma = front.rows(levels, height, height * 3 // 2, [1, height // 2, width // 2, 2])
    chroma = front.node(
        "Resize",
        front.node("Transpose", chroma, perm=[0, 3, 1, 2]),
        front.constant("roi", [], np.float32),
        front.constant("scales", [1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    matrix = rgb_matrix(color_range)
    rgb = front.node(
        "Conv",
        front.node("Concat", luma, chroma, axis=1),
        front.constant("matrix", matrix[:, :3].reshape(3, 3, 1, 1), np.float32),
        front.constant("offsets", matrix[:, 3], np.float32),
    )
    black, white = (
        front.constant("black", 0.0, np.float32),
        front.constant("white", 255.0, np.float32),
    )
    return front.node("Clip", front.node("Round", rgb), black, white)
