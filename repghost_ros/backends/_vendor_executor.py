# SPDX-License-Identifier: Apache-2.0
"""Run by the toolchain's Python: NV12 frames on stdin, a quantized model's logits on stdout.

    python _vendor_executor.py MODEL_quantized_model.onnx

Writes one line of JSON (width, height, classes), then for each frame of height * 3 // 2 * width bytes
the float32 logits. Ends when stdin is closed.
"""

import json
import os
import sys

import numpy as np


def main() -> None:
    # The vendor's packages' own output must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import onnx
    from horizon_nn.api import ORTExecutor

    model = onnx.load(sys.argv[1])
    image = model.graph.input[0]
    kind = image.type.tensor_type
    shape = [dimension.dim_value for dimension in kind.shape.dim]
    if len(model.graph.input) != 1 or kind.elem_type != onnx.TensorProto.INT8 or shape[3:] != [3]:
        sys.exit(
            "its input is not int8 1xHxWx3: expected the ..._quantized_model.onnx of an NV12 model"
        )
    _, height, width, _ = shape
    executor = ORTExecutor(model).create_session()

    def run(frame: np.ndarray) -> np.ndarray:
        y, uv = np.split(frame.reshape(height * 3 // 2, width), [height])
        chroma = uv.reshape(height // 2, width // 2, 2).repeat(2, 0).repeat(2, 1)
        # The model takes levels minus 128, which flipping the highest bit gives.
        yuv = (np.dstack([y, chroma]) ^ 128).view(np.int8)[None]
        (logits,) = executor.forward({image.name: yuv}).values()
        return np.asarray(logits, np.float32).reshape(-1)

    size = height * 3 // 2 * width
    classes = run(np.full(size, 128, np.uint8)).size
    head = {"width": width, "height": height, "classes": classes}
    answers.write(json.dumps(head).encode() + b"\n")
    answers.flush()
    while True:
        frame = sys.stdin.buffer.read(size)
        if len(frame) < size:
            return
        answers.write(run(np.frombuffer(frame, np.uint8)).tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
