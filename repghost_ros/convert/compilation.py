# SPDX-License-Identifier: Apache-2.0
"""Float ONNX -> .bin for the BPU: the vendor's hb_mapper, settings, progress, failures.

Paths in the yaml are relative to its folder, so the folder can be moved to the toolchain.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.toolchain import MAPPER, Toolchain
from repghost_ros.convert.calibration import Calibration
from repghost_ros.convert.export import OPSET
from repghost_ros.convert.quantization import open_float
from repghost_ros.errors import ConversionError, need
from repghost_ros.files import move
from repghost_ros.graphs.ending import cut_activation
from repghost_ros.graphs.graph import fixed_shape, load, opset, refuse_quantized, save
from repghost_ros.output import whole_file
from repghost_ros.zoo.binary import MARCH, RANGES
from repghost_ros.zoo.catalogue import compiled_stem
from repghost_ros.zoo.model_file import read_model_file
from repghost_ros.zoo.onnx_graph import copy_model
from repghost_ros.zoo.record import compiled_name

_RANGES = {ours: theirs for theirs, ours in RANGES.items()}
_TAIL = 8  # lines of a failed run's log to show
_STAGES = ("prepare", "optimize", "calibrate", "quantize", "compile")
_STAGE = re.compile(rf"Start to ({'|'.join(_STAGES)}) the (?:onnx )?model")
_PERCENT = re.compile(r"\] *(\d+)%|: +(\d+)%\|")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_GRACE_S = 5.0  # between asking the toolchain to end and killing it

ShowStage = Callable[[str, int], None]
"""Shows the stage of long work, in words, and how many percent of it are done."""


@dataclass(frozen=True)
class Method:
    """A way to find the ranges of activations."""

    name: str
    calibration_type: str
    max_percentile: float | None = None
    per_channel: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("default", "default"),
        Method("max", "max"),
        Method("kl", "kl"),
        Method("max-percentile", "max", max_percentile=0.9999),
        Method("per-channel", "max", per_channel=True),
    )
}
"""The calibrations that are tried; `default`, the vendor's own search, takes the longest."""


@dataclass(frozen=True)
class Job:
    """A folder ready for the toolchain."""

    folder: Path
    """The folder to run the command in."""
    yaml: Path
    command: tuple[str, ...]
    work: Path
    """The toolchain's own folder, with all that it makes on the way."""
    prefix: str
    """Start of the names of its files."""

    @property
    def bin(self) -> Path:
        """Path of the compiled model once it is complete."""
        return self.folder / f"{self.prefix}.bin"

    @property
    def quantized(self) -> Path:
        """The quantized model, which the vendor's executor runs bit for bit like the board."""
        return self.work / f"{self.prefix}_quantized_model.onnx"


@dataclass(frozen=True)
class SpeedEstimate:
    """The vendor compiler's prediction for a model on one core; not measured on a board."""

    latency_us: float
    """Of one inference, of all pictures of a batch."""
    fps: float
    """Pictures a second."""
    ddr_bytes: int
    """Read and written for a picture."""


@dataclass(frozen=True)
class Similarity:
    """A layer's similarity between quantized and float output, from the toolchain's table."""

    layer: str
    cosine: float


def check_compilable(model: Path) -> None:
    """Refuse what the toolchain cannot take, before long work starts.

    Raises:
        ConversionError: the model has a newer opset, no fixed shapes, is quantized already, or ends in
            an activation that cannot be cut off.

    """
    loaded = load(model)
    refuse_quantized(loaded, f"'{model}'")
    if opset(loaded) > OPSET:
        raise ConversionError(
            f"'{model}' has opset {opset(loaded)}, the vendor's toolchain takes {OPSET} at most: "
            "export it with that one, or --skip vendor"
        )
    for image in loaded.graph.input:
        shape = fixed_shape(image, model)
        if len(shape) == 4 and (shape[2] % 2 or shape[3] % 2):
            raise ConversionError(
                f"'{model}' takes {shape[3]}x{shape[2]} pictures, and NV12 has even sides only: export "
                "it for others, or --skip vendor"
            )
    gives_scores = read_model_file(model).onnx.ending in ("softmax", "sigmoid")
    if gives_scores and not cut_activation(loaded)[1]:
        raise ConversionError(
            f"'{model}' ends in an activation that cannot be cut off before compiling: export it "
            "without, so that it gives logits, or --skip vendor"
        )


def without_activation(model: Path, out: Path) -> Path:
    """Cut off a last softmax or sigmoid, which is to be applied to the compiled model's outputs.

    Args:
        model: the float .onnx.
        out: folder for the model without it.

    Returns:
        the model whose outputs are logits: the given one, if it has no such activation.

    Raises:
        ConversionError: it is not an ONNX model.
        DependencyError: onnx is missing.
        OutputError: the model cannot be written.

    """
    cut, activation = cut_activation(load(model))
    if not activation:
        return model
    path = out / f"{model.stem}_logits.onnx"
    save(cut, path)
    return path


def prepare(
    model: Path,
    name: str,
    calibration: Calibration,
    out: Path,
    *,
    method: Method = METHODS["default"],
    batch: int = 1,
    optimize_level: str = "O3",
    int16: Sequence[str] = (),
) -> Job:
    """Write OUT/NAME.yaml beside a copy of the model and the tensors.

    Args:
        model: the float .onnx.
        name: one of the catalogue, or the name of your own model.
        calibration: made in `out` or in a parent folder.
        out: the folder.
        method: how to calibrate.
        batch: frames per inference.
        optimize_level: the compiler's, O0 to O3.
        int16: names of nodes whose inputs and outputs have 16 bits instead of eight.

    Raises:
        ConversionError: the toolchain cannot take the model.
        DependencyError: onnx or PyYAML is missing.

    """
    yaml = need("yaml", "pip install pyyaml")
    check_compilable(model)
    backend = open_float(model)
    name = compiled_stem(name)
    prefix = compiled_name(name, calibration.width, calibration.height, batch)
    out.mkdir(parents=True, exist_ok=True)
    copy = out / model.name
    if not (copy.exists() and copy.samefile(model)):
        copy_model(model, copy)
    config = {
        "model_parameters": _model_parameters(copy, prefix, int16),
        "input_parameters": _input_parameters(backend, calibration, batch),
        "calibration_parameters": _calibration_parameters(calibration, out, method),
        "compiler_parameters": {
            "compile_mode": "latency",
            "debug": False,
            "optimize_level": optimize_level,
        },
    }
    path = out / f"{name}.yaml"
    command = (MAPPER, "makertbin", "--config", path.name, "--model-type", "onnx")
    header = f"# For NV12 of the {calibration.color_range} range: color_range of the node.\n"
    with whole_file(path) as partial:
        partial.write_text(header + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return Job(out, path, command, out / prefix, prefix)


def _model_parameters(model: Path, prefix: str, int16: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "onnx_model": f"./{model.name}",
        "march": MARCH,
        "layer_out_dump": False,
        "working_dir": prefix,
        "output_model_file_prefix": prefix,
    }
    if int16:
        wide = {"ON": "BPU", "InputType": "int16", "OutputType": "int16"}
        settings["node_info"] = {name: dict(wide) for name in int16}
    return settings


def _input_parameters(backend: OnnxBackend, calibration: Calibration, batch: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "input_name": "",
        "input_type_rt": "nv12",
        "input_type_train": calibration.channel_order,
        "input_layout_train": "NCHW",
        "input_shape": "",
        "input_space_and_range": _RANGES[calibration.color_range],
        "norm_type": "data_mean_and_scale",
        "mean_value": " ".join(map(str, backend.mean)),
        "scale_value": " ".join(map(str, backend.scale)),
    }
    if batch > 1:
        settings["input_batch"] = batch
    return settings


def _calibration_parameters(calibration: Calibration, out: Path, method: Method) -> dict[str, Any]:
    tensors = Path(os.path.relpath(calibration.folder, out))
    settings: dict[str, Any] = {
        "cal_data_dir": f"./{tensors}" if tensors.parts[0] != ".." else str(tensors),
        "cal_data_type": "float32",
        "calibration_type": method.calibration_type,
    }
    if method.max_percentile is not None:
        settings["max_percentile"] = method.max_percentile
    if method.per_channel:
        settings["per_channel"] = True
    return settings


def compile_bin(job: Job, toolchain: Toolchain, progress: ShowStage = lambda *_: None) -> Path:
    """Quantize and compile; the toolchain's output goes to FOLDER/hb_mapper.log.

    Returns:
        the compiled model, which exists only if complete.

    Raises:
        ConversionError: the toolchain failed; with the last lines it said.
        OSError: it cannot be started, or the disk is full.

    """
    job.bin.unlink(missing_ok=True)  # an earlier run's must not be mistaken for this one's
    try:
        _run(job, toolchain, progress)
    except BaseException:  # an interrupt, too: nothing half-written stays
        shutil.rmtree(job.work, ignore_errors=True)
        raise
    made = job.work / f"{job.prefix}.bin"
    if not made.is_file():
        raise _failure(job, f"it made no '{made.name}'")
    move(made, job.bin)
    return job.bin


def quantize_only(job: Job, toolchain: Toolchain, progress: ShowStage = lambda *_: None) -> Path:
    """Quantize, and stop the toolchain when it begins to compile, which takes longest.

    Returns:
        the quantized model.

    Raises:
        ConversionError: the toolchain failed; with the last lines it said.
        OSError: it cannot be started, or the disk is full.

    """
    _run(job, toolchain, progress, until="compile")
    if not job.quantized.is_file():
        raise _failure(job, f"it made no '{job.quantized.name}'")
    return job.quantized


def prediction(job: Job) -> SpeedEstimate:
    """Return the compiler's prediction for the model it made: all parts of it that run on the BPU.

    Raises:
        ConversionError: it left no prediction.

    """
    written = (path.read_text(encoding="utf-8") for path in job.work.glob("*_subgraph_*.json"))
    parts = [json.loads(text).get("summary", {}) for text in written]
    parts = [summary for summary in parts if "latency (us)" in summary]
    if not parts:
        raise ConversionError(f"the compiler left no prediction in '{job.work}'")
    return SpeedEstimate(
        sum(float(summary["latency (us)"]) for summary in parts),
        1 / sum(1 / float(summary["FPS"]) for summary in parts),
        sum(int(summary["DDR bytes per frame"]) for summary in parts),
    )


def similarities(job: Job) -> list[Similarity]:
    """Each layer's cosine similarity, the worst first; empty if the toolchain left none."""
    path = job.work / f"{job.prefix}_quant_info.json"
    if not path.is_file():
        return []
    layers = json.loads(path.read_text(encoding="utf-8"))
    found = [
        Similarity(name, float(layer["cosine_similarity"]))
        for name, layer in layers.items()
        if layer.get("cosine_similarity", "--").lstrip("-") not in ("", "nan")
    ]
    return sorted(found, key=lambda layer: layer.cosine)


def _run(job: Job, toolchain: Toolchain, progress: ShowStage, until: str = "") -> None:
    """Run the job's command to its end, or to the start of the stage `until`."""
    shutil.rmtree(job.work, ignore_errors=True)
    with (job.folder / f"{MAPPER}.log").open("wb") as log, tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [toolchain.program(MAPPER), *job.command[1:]],
            cwd=job.folder,
            # The folder takes the compiler's large temporary files with it, however the run ends.
            env={**toolchain.environment(), "TMPDIR": scratch, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            stage = "start"
            for line in _lines(process.stdout, log):
                if began := _STAGE.search(line):
                    stage = began[1]
                    if stage == until:
                        return
                done = _PERCENT.findall(line)
                progress(stage, int("".join(done[-1])) if done else 0)
            code = process.wait()
        finally:  # an interrupt also ends the toolchain's child processes
            _end(process)
    if code:
        raise _failure(job, f"exit code {code}")


def _lines(output: IO[bytes], log: IO[bytes]) -> Iterator[str]:
    """Yield a program's output, by lines and by steps of its progress bars."""
    rest = b""
    while chunk := os.read(output.fileno(), 1 << 14):
        log.write(chunk)
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        # A compiler's bar is one long line.
        for line in (*whole, *([rest] if b"%" in rest else [])):
            yield line.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and its child processes."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _failure(job: Job, why: str) -> ConversionError:
    log = job.folder / f"{MAPPER}.log"
    text = _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace"))
    tail = [line for line in text.splitlines() if line.strip()][-_TAIL:]
    return ConversionError(
        "\n  ".join([f"{MAPPER} failed ({why}); '{log}' ends with:", *(tail or ["(nothing)"])])
    )
