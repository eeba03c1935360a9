"""Emulation of hbm_runtime's HB_HBMRuntime, as far as a classifier uses it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from emulator.device import Device


class HB_HBMRuntime:  # noqa: N801  (the vendor's name)
    """One model of one input and one output; one inference at a time, without the GIL."""

    def __init__(self, path: str) -> None:
        self._device = Device(path, hold_gil=False)
        self._lock = threading.Lock()
        self.scheduling: dict[str, Any] = {}
        self.model_names = ["repghost"]
        self.input_names = {"repghost": ["data"]}
        self.output_names = {"repghost": ["output"]}
        self.input_shapes = {"repghost": {"data": list(self._device.input_shape)}}
        self.output_shapes = {"repghost": {"output": list(self._device.output_shape)}}

    def set_scheduling_params(
        self,
        priority: dict[str, int] | None = None,
        bpu_cores: dict[str, list[int]] | None = None,
    ) -> None:
        self.scheduling = {"priority": priority, "bpu_cores": bpu_cores}

    def run(self, inputs: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
        with self._lock:
            return {"repghost": {"output": self._device.run(inputs["repghost"]["data"])}}
