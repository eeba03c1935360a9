"""The vendor's PC toolchain (OpenExplorer's hb_mapper): what it needs to make a .bin for the BPU.

All paths in the yaml are relative to its folder, which can so be moved to where the toolchain is.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from repghost_ros.convert.calibration import Calibration
from repghost_ros.convert.export import OPSET
from repghost_ros.errors import ConversionError, need
from repghost_ros.zoo.catalogue import MEAN, MODELS, SCALE

MAPPER = "hb_mapper"
_RANGES = {"full": "regular", "limited": "bt601_video"}
"""Our color ranges -> the toolchain's input_space_and_range."""
_TAIL = 8  # lines of a failed run's log to show


@dataclass(frozen=True)
class Job:
    """A folder ready for the toolchain."""

    folder: Path
    """Where the command is to be run."""
    yaml: Path
    command: tuple[str, ...]
    bin: Path
    """Where the toolchain will put the compiled model."""


def prepare(model: Path, name: str, calibration: Calibration, out: Path) -> Job:
    """Write OUT/NAME.yaml beside a copy of the model and the tensors.

    Args:
        model: the float .onnx.
        name: one of MODELS, or of a model of one's own.
        calibration: made in the same `out`.
        out: the folder.

    Raises:
        ConversionError: onnx or PyYAML is missing, or the toolchain cannot take the model.

    """
    onnx = need("onnx", "pip install onnx")
    yaml = need("yaml", "pip install pyyaml")
    opset = max(entry.version for entry in onnx.load(model).opset_import)
    if opset > OPSET:
        raise ConversionError(
            f"'{model}' has opset {opset}, the vendor's toolchain takes {OPSET} at most: export it "
            "with that one, or --skip vendor"
        )
    name = f"RepGhost_{name}" if name in MODELS else name
    prefix = f"{name}_{calibration.width}x{calibration.height}_nv12"
    copy = out / model.name
    if not (copy.exists() and copy.samefile(model)):
        shutil.copyfile(model, copy)
    config = {
        "model_parameters": {
            "onnx_model": f"./{copy.name}",
            "march": "bayes-e",
            "layer_out_dump": False,
            "working_dir": prefix,
            "output_model_file_prefix": prefix,
        },
        "input_parameters": {
            "input_name": "",
            "input_type_rt": "nv12",
            "input_type_train": "rgb",
            "input_layout_train": "NCHW",
            "input_shape": "",
            "input_space_and_range": _RANGES[calibration.color_range],
            "norm_type": "data_mean_and_scale",
            "mean_value": " ".join(map(str, MEAN)),
            "scale_value": " ".join(map(str, SCALE)),
        },
        "calibration_parameters": {
            "cal_data_dir": f"./{calibration.folder.name}",
            "cal_data_type": "float32",
            "calibration_type": "default",
        },
        "compiler_parameters": {
            "compile_mode": "latency",
            "debug": False,
            "optimize_level": "O3",
        },
    }
    path = out / f"{name}.yaml"
    command = (MAPPER, "makertbin", "--config", path.name, "--model-type", "onnx")
    header = f"# For NV12 of the {calibration.color_range} range: color_range of the node.\n"
    path.write_text(header + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return Job(out, path, command, out / prefix / f"{prefix}.bin")


def compile_bin(job: Job) -> Path | None:
    """Run the toolchain, its output in FOLDER/hb_mapper.log.

    Returns:
        the compiled model, or None where the toolchain is not on PATH.

    Raises:
        ConversionError: it failed; with the last lines of the log.
        OSError: it cannot be started.

    """
    program = shutil.which(MAPPER)
    if program is None:
        return None
    job.bin.unlink(missing_ok=True)  # an earlier run's must not pass for this one's
    log = job.folder / f"{MAPPER}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(Path(program).absolute()), *job.command[1:]],
            cwd=job.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:  # an interrupt ends the processes that it started, too
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if code == 0 and job.bin.is_file():
        return job.bin
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    why = f"exit code {code}" if code else f"it made no '{job.bin}'"
    raise ConversionError(
        "\n  ".join([f"{MAPPER} failed ({why}); '{log}' ends with:", *(tail or ["(nothing)"])])
    )
