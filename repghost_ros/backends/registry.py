# SPDX-License-Identifier: Apache-2.0
"""The runtimes, fastest first, and the choice of one of them."""

from __future__ import annotations

from pathlib import Path

from repghost_ros.backends import hobot_dnn, libdnn, onnx, sim
from repghost_ros.backends.base import Runtime
from repghost_ros.errors import BackendError

RUNTIMES = (libdnn.RUNTIME, hobot_dnn.RUNTIME, onnx.RUNTIME, sim.RUNTIME)
"""Fastest first. `auto` never stands for the last, the simulator."""
BACKENDS = ("auto", *dict.fromkeys(runtime.backend for runtime in RUNTIMES))
_BARE = "; a .hbm is the bare program for the BPU: use the .bin that it was compiled into"
BPU_RUNTIMES = ("auto", *(runtime.name for runtime in RUNTIMES if runtime.backend == "bpu"))


def choose(
    backend: str = "auto",
    bpu_runtime: str = "auto",
    *,
    path: Path | None = None,
) -> Runtime:
    """Return the fastest usable runtime for a model; slower ones are not probed.

    Args:
        backend: one of BACKENDS; `auto` is the model file's own, else the BPU where there is one. The
            simulator, `sim`, is chosen only by name.
        bpu_runtime: one of BPU_RUNTIMES; ignored for models that run elsewhere.
        path: the model's file, if the user gave one; models of the catalogue exist for all backends.

    Raises:
        BackendError: the model is not for that backend, or no runtime for it is usable here.

    """
    if backend not in BACKENDS:
        raise BackendError(f"backend '{backend}' is unknown: choose one of {', '.join(BACKENDS)}")
    if bpu_runtime not in BPU_RUNTIMES:
        raise BackendError(
            f"BPU runtime '{bpu_runtime}' is unknown: choose one of {', '.join(BPU_RUNTIMES)}"
        )
    fitting = [r for r in RUNTIMES if path is None or path.suffix.lower() in r.suffixes]
    if not fitting:
        known = dict.fromkeys(suffix for runtime in RUNTIMES for suffix in runtime.suffixes)
        raise BackendError(
            f"'{path}' is not a model file: expected one that ends in {', '.join(known)}"
            + _BARE * (path is not None and path.suffix.lower() == ".hbm")
        )
    auto = [runtime for runtime in fitting if runtime.backend != sim.RUNTIME.backend]
    wanted = auto if backend == "auto" else [r for r in fitting if r.backend == backend]
    if not wanted:
        raise BackendError(
            f"backend '{backend}' cannot run it: '{path}' is a file for the backend "
            f"'{fitting[0].backend}'"
        )
    reasons = []
    for runtime in wanted:
        if runtime.backend == "bpu" and bpu_runtime not in ("auto", runtime.name):
            continue
        reason = runtime.available()
        if reason is None:
            return runtime
        reasons.append(f"{runtime.name}: {reason}")
    what = "no runtime is usable here"
    if path and all(runtime.backend == "bpu" for runtime in wanted):
        what = f"'{path}' is for the board's BPU; on a PC use the .onnx, or backend 'sim' on files"
    raise BackendError(f"{what} ({'; '.join(reasons)})")
