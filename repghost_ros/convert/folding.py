# SPDX-License-Identifier: Apache-2.0
"""Preprocessing inside the graph: turns an RGB classifier into one that takes NV12."""

from __future__ import annotations

from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, need
from repghost_ros.vision.nv12 import rgb_matrix
from repghost_ros.zoo.binary import COLOR_RANGE_KEY
from repghost_ros.zoo.catalogue import MEAN, SCALE


def fold_preprocess(model: Any, color_range: str = "full") -> Any:
    """Put NV12 -> RGB -> normalization in front of a model, with operators of opset 11.

    The graph computes what the ONNX backend does: RGB rounded to whole levels.

    Args:
        model: an onnx.ModelProto with one input, 1x3xHxW float32 normalized RGB.
        color_range: BT.601 range of the NV12.

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
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: Any, dtype: Any) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), f"nv12/{name}"))
        return f"nv12/{name}"

    def node(operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"nv12/{operator}{len(nodes)}"
        nodes.append(onnx.helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def rows(first: int, last: int, shape: list[int]) -> str:
        name = f"rows{first}"
        start, end = (
            constant(f"{name}/{edge}", [at], np.int64)
            for edge, at in (("start", first), ("end", last))
        )
        part = node("Slice", levels, start, end, constant(f"{name}/axis", [0], np.int64))
        return node("Reshape", part, constant(f"{name}/shape", shape, np.int64))

    levels = node("Cast", "nv12", to=onnx.TensorProto.FLOAT)
    luma = rows(0, height, [1, 1, height, width])
    chroma = rows(height, height * 3 // 2, [1, height // 2, width // 2, 2])
    chroma = node("Transpose", chroma, perm=[0, 3, 1, 2])
    chroma = node(
        "Resize",
        chroma,
        constant("roi", [], np.float32),
        constant("scales", [1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    yuv = node("Concat", luma, chroma, axis=1)
    matrix = rgb_matrix(color_range)
    weights = constant("matrix", matrix[:, :3].reshape(3, 3, 1, 1), np.float32)
    rgb = node("Conv", yuv, weights, constant("offsets", matrix[:, 3], np.float32))
    rgb = node("Round", rgb)
    rgb = node(
        "Clip", rgb, constant("black", 0.0, np.float32), constant("white", 255.0, np.float32)
    )
    centred = node("Sub", rgb, constant("mean", np.reshape(MEAN, (1, 3, 1, 1)), np.float32))
    node(
        "Mul",
        centred,
        constant("scale", np.reshape(SCALE, (1, 3, 1, 1)), np.float32),
        output=image.name,
    )
    folded_input = onnx.helper.make_tensor_value_info(
        "nv12", onnx.TensorProto.UINT8, [height * 3 // 2, width]
    )
    graph = onnx.helper.make_graph(
        [*nodes, *model.graph.node],
        model.graph.name,
        [folded_input],
        list(model.graph.output),
        [*constants, *model.graph.initializer],
    )
    folded = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", max(opset, 11))],
        ir_version=model.ir_version,
        producer_name="repghost_ros",
    )
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(folded, {**properties, COLOR_RANGE_KEY: color_range})
    onnx.checker.check_model(folded, full_check=True)
    return folded
