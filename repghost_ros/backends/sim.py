# SPDX-License-Identifier: Apache-2.0
"""NV12 -> logits as the board computes them, bit for bit, on a PC with the vendor's toolchain.

A .bin runs in the vendor's simulator of the BPU, one process per frame; a quantized model
(MODEL_quantized_model.onnx, which the compiler leaves beside the .bin) in the vendor's executor, one
process per worker and several times as fast. Both give equal answers. Too slow for a live node.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from repghost_ros.backends import _vendor_executor
from repghost_ros.backends.base import Backend, BackendOptions, Runtime, SingleSlot, Slot
from repghost_ros.backends.toolchain import Toolchain, find_toolchain
from repghost_ros.errors import BackendError, DependencyError
from repghost_ros.zoo.binary import Compiled
from repghost_ros.zoo.model_file import ModelFile

_TIMEOUT_S = 600  # of one simulated inference
_GRACE_S = 5.0  # until the executor is killed


def available() -> str | None:
    """None if the vendor's toolchain is usable, else why not."""
    try:
        find_toolchain()
    except DependencyError as error:
        return str(error)
    return None


def version() -> str:
    """Return the compiler's version."""
    return find_toolchain().compiler


def simulate(
    toolchain: Toolchain, model: Compiled, frames: Sequence[np.ndarray], folder: Path
) -> np.ndarray:
    """One inference in the vendor's simulator.

    Args:
        toolchain: where it is.
        model: its .hbm is `folder`/model.hbm.
        frames: `model.batch` of uint8 (height * 3 // 2, width).
        folder: for input and output; one simulation at a time.

    Returns:
        float32 (batch, classes) logits.

    Raises:
        BackendError: the simulator failed.

    """
    size, count = f"{model.height}x{model.width}", len(frames)
    for number, frame in enumerate(frames):
        np.ascontiguousarray(frame).tofile(folder / f"{number}.yuv")
    out = folder / "out"
    out.mkdir(exist_ok=True)

    def for_all(value: str) -> str:
        return ",".join([value] * count)

    command = [
        *(toolchain.program("hbdk-sim"), "-f", "model.hbm", "-n", model.bpu_parts[0], "-o", "out"),
        *("-i", ",".join(f"{number}.yuv" for number in range(count))),
        *("--yuv-size", for_all(size), "--yuv-stride", for_all(str(model.width))),
        *("--yuv-roi-coord", for_all("0x0"), "--yuv-roi-size", for_all(size)),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=toolchain.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"the vendor's simulator failed: {error}") from error
    answers = sorted(out.glob("*_int.txt"))
    if done.returncode or len(answers) != 1:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        raise BackendError(f"the vendor's simulator failed ({done.returncode}): {said[-3:]}")
    integers = np.loadtxt(answers[0], comments="#", dtype=np.int64)
    answers[0].unlink()  # so that it cannot be mistaken for a later one's
    if integers.size != model.batch * model.classes:
        raise BackendError(
            f"the vendor's simulator answered {integers.size} numbers for {model.batch} pictures of "
            f"{model.classes} classes"
        )
    logits: np.ndarray = integers.reshape(model.batch, -1).astype(np.float32) * model.scale
    return logits


class CompiledBackend:
    """A .bin in the vendor's simulator of the BPU."""

    labels: tuple[str, ...] = ()  # compiled models carry none

    def __init__(self, file: ModelFile) -> None:
        self.model = file.for_simulation()
        self.toolchain = _toolchain()
        self.runtime = f"simulator (hbdk-sim {self.toolchain.compiler})"
        self.width, self.height = self.model.width, self.model.height
        self.classes, self.batch = self.model.classes, self.model.batch

    def open_slot(self) -> CompiledSlot:
        """Make a folder for one worker's simulations."""
        return CompiledSlot(self)

    def close(self) -> None:
        """Nothing is kept between inferences."""


class CompiledSlot(Slot):
    """One worker's frames and folder. Unused inputs of a batch stay gray."""

    def __init__(self, backend: CompiledBackend) -> None:
        self._backend = backend
        self._folder = tempfile.TemporaryDirectory(prefix="repghost_sim_")
        Path(self._folder.name, "model.hbm").write_bytes(backend.model.program)
        shape = (backend.batch, backend.height * 3 // 2, backend.width)
        self.inputs = tuple(np.full(shape, 128, np.uint8))

    def infer_batch(self, count: int) -> np.ndarray:
        """Simulate one inference on `inputs`: float32 (count, classes)."""
        backend = self._backend
        folder = Path(self._folder.name)
        return simulate(backend.toolchain, backend.model, self.inputs, folder)[:count]

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


class QuantizedBackend:
    """A quantized ONNX in the vendor's executor."""

    labels: tuple[str, ...] = ()
    batch = 1

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BackendError(f"model file '{path}' does not exist")
        self.path = path
        self.toolchain = _toolchain()
        self.runtime = f"simulator (the quantizer's executor, hbdk {self.toolchain.compiler})"
        # The first process reports the sizes and becomes the first slot's.
        self._first: _Process | None = _Process(self)
        head = self._first.head
        self.width, self.height = head["width"], head["height"]
        self.classes = head["classes"]

    def open_slot(self) -> QuantizedSlot:
        """Make a process for one worker."""
        process, self._first = self._first or _Process(self), None
        return QuantizedSlot(self, process)

    def close(self) -> None:
        """End the process if no slot took it."""
        if self._first is not None:
            self._first.close()
            self._first = None


class _Process:
    """The executor in the toolchain's Python."""

    def __init__(self, backend: QuantizedBackend) -> None:
        toolchain = backend.toolchain
        # A file, because a pipe that nobody reads would fill up.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            # Isolated (-I), because a module named onnx lies beside the script.
            [str(toolchain.python), "-I", _vendor_executor.__file__, str(backend.path.absolute())],
            env={**toolchain.environment(), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is the parent's to handle; it ends with its stdin
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        try:
            head = self._stdout.readline()
            if not head:
                raise BackendError(f"'{backend.path}' cannot be simulated: {self._why()}")
        except BaseException:
            self.close()
            raise
        self.head: dict[str, int] = json.loads(head)

    def run(self, frame: np.ndarray) -> np.ndarray:
        """float32 (classes,) logits of a uint8 (height * 3 // 2, width) frame."""
        size = 4 * self.head["classes"]
        try:
            self._stdin.write(frame.tobytes())
            self._stdin.flush()
            answer = self._stdout.read(size)
        except OSError:
            answer = b""
        if len(answer) != size:
            raise BackendError(f"the vendor's executor failed: {self._why()}")
        return np.frombuffer(answer, np.float32).copy()

    def _why(self) -> str:
        """Return the last lines of its stderr."""
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def close(self) -> None:
        """End it."""
        with suppress(BrokenPipeError):  # of a frame that it will no longer read
            self._stdin.close()
        try:  # the vendor's packages remove their temporary folders only on a normal exit
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._said.close()


class QuantizedSlot(SingleSlot):
    """One worker's frame and process."""

    def __init__(self, backend: QuantizedBackend, process: _Process) -> None:
        super().__init__(backend.height, backend.width)
        self._process = process

    def infer(self) -> np.ndarray:
        """Run the model on `nv12`: float32 (classes,)."""
        return self._process.run(self.nv12)

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _toolchain() -> Toolchain:
    try:
        return find_toolchain()
    except DependencyError as error:
        raise BackendError(str(error)) from error


def _open(file: ModelFile, _: BackendOptions) -> Backend:
    return QuantizedBackend(file.path) if file.is_onnx else CompiledBackend(file)


RUNTIME = Runtime("simulator", "sim", (".bin", ".onnx"), available, version, _open)
