"""What the emulated vendor packages share: the emulated device, called as they call it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from repghost_ros.backends import libdnn


class Device:
    """One loaded model, with one pair of buffers.

    With `hold_gil` every call keeps Python's lock, as the real pyeasy_dnn was measured to do.
    """

    def __init__(self, path: str, *, hold_gil: bool) -> None:
        if hold_gil:
            libdnn.library()  # declares the functions' types, which PyDLL does not share
            calls: Any = ctypes.PyDLL(os.environ["REPGHOST_LIBDNN"])
            for name, arguments in libdnn._SIGNATURES.items():
                getattr(calls, name).argtypes = arguments
        try:
            self._backend = libdnn.LibdnnBackend(libdnn.Path(path))
        except Exception as error:
            raise RuntimeError(f"load model failed: {error}") from None
        if hold_gil:
            calls.hbDNNGetErrorDesc.restype = ctypes.c_char_p
            self._backend.dnn = calls
        self._slot = self._backend.open_slot()
        self.input_shape = tuple(self._backend.input.validShape.sizes())
        self.output_shape = tuple(self._backend.output.validShape.sizes())
        self.height, self.width = self._backend.height, self._backend.width

    def run(self, nv12: np.ndarray) -> np.ndarray:
        """float32 logits in the output's shape."""
        expected = self.height * self.width * 3 // 2
        if nv12.dtype != np.uint8 or nv12.size != expected:
            raise RuntimeError(f"expected {expected} bytes of NV12, got {nv12.size} {nv12.dtype}")
        self._slot.nv12[...] = nv12.reshape(self._slot.nv12.shape)
        return self._slot.infer().reshape(self.output_shape)

    def __del__(self) -> None:
        slot = getattr(self, "_slot", None)
        if slot is not None:
            slot.close()
            self._backend.close()
