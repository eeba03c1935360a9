"""pyeasy_dnn: load, and models with inputs, outputs and a forward that holds the GIL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from emulator.device import Device


class Model:
    """One model; `forward` takes packed NV12 and answers with tensors that have a `buffer`."""

    def __init__(self, path: str) -> None:
        self._device = Device(path, hold_gil=True)

        def tensor(shape: tuple[int, ...], dtype: str, tensor_type: str) -> Any:
            properties = SimpleNamespace(
                shape=shape, dtype=dtype, layout="NCHW", tensor_type=tensor_type
            )
            return SimpleNamespace(properties=properties)

        self.inputs = [tensor(self._device.input_shape, "uint8", "NV12_SEPARATE")]
        self.outputs = [tensor(self._device.output_shape, "float32", "float32")]

    def forward(self, data: np.ndarray) -> list[Any]:
        return [SimpleNamespace(buffer=self._device.run(data))]


def load(path: str) -> list[Model]:
    return [Model(path)]
