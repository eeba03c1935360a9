"""The vendor's PC toolchain (OpenExplorer's hb_mapper): what it needs to make a .bin for the BPU.

All paths in the yaml are relative to its folder, which can so be moved to where the toolchain is.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from repghost_ros.convert.calibration import Calibration
from repghost_ros.convert.export import OPSET
from repghost_ros.errors import ConversionError, DependencyError, need
from repghost_ros.paths import share
from repghost_ros.zoo.catalogue import MEAN, MODELS, SCALE

MAPPER = "hb_mapper"
PROGRAMS = (MAPPER, "hb_extract_hbm", "hb_pack", "hbdk-cc", "hbdk-perf", "hbdk-sim")
COMPILER = "3.49"
"""The releases of hbdk-cc that this package was written with and checked against, 3.49.15."""
_MODULES = {"horizon_tc_ui": "rdkx5-yolo-mapper", "hmct": "dg-nn-toolkit", "hbdk": "dgdk"}
"""What its Python must be able to import -> the distribution that has it."""
_SET_UP = "`make toolchain` in a checkout of this package installs it (x86-64 Linux, Python 3.10)"
_RANGES = {"full": "regular", "limited": "bt601_video"}
"""Our color ranges -> the toolchain's input_space_and_range."""
_TAIL = 8  # lines of a failed run's log to show


@dataclass(frozen=True)
class Toolchain:
    """An installed toolchain, complete and of a known release."""

    programs: Path
    """The folder that holds all of PROGRAMS."""
    python: Path
    """The interpreter that they run with, which can import hmct."""
    compiler: str
    """Version of hbdk-cc."""

    def program(self, name: str) -> str:
        """The path of one of PROGRAMS, for subprocess."""
        return str(self.programs / name)

    def environment(self) -> dict[str, str]:
        """What the programs are to be run with: they call one another by name.

        This process's own Python path is left out, for ROS puts packages of another Python there.
        """
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**own, "PATH": f"{self.programs}{os.pathsep}{own.get('PATH', os.defpath)}"}


def find_toolchain() -> Toolchain:
    """The toolchain where REPGHOST_TOOLCHAIN says, else on PATH, else in the checkout.

    REPGHOST_TOOLCHAIN names a virtual environment or the folder of its programs; `make toolchain`
    makes `.venv-toolchain` in the checkout.

    Raises:
        DependencyError: there is none, or it is incomplete, broken or of another release.

    """
    named = os.environ.get("REPGHOST_TOOLCHAIN")
    on_path = shutil.which(MAPPER)
    if named:
        folder = Path(named).expanduser().absolute()
        folder = folder / "bin" if (folder / "bin").is_dir() else folder
    elif on_path:
        folder = Path(on_path).absolute().parent
    else:
        folder = share() / ".venv-toolchain" / "bin"
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if len(missing) == len(PROGRAMS):
        where = (
            f"not in '{folder}', which REPGHOST_TOOLCHAIN names"
            if named
            else ("neither on PATH nor in .venv-toolchain, and REPGHOST_TOOLCHAIN names none")
        )
        raise DependencyError(f"the vendor's toolchain is {where}: {_SET_UP}")
    if missing:
        raise DependencyError(
            f"the vendor's toolchain in '{folder}' has no {', '.join(missing)}: {_SET_UP}"
        )
    python = _interpreter(folder / MAPPER)
    compiler = _compiler_version(folder)
    if not compiler.startswith(f"{COMPILER}."):
        raise DependencyError(
            f"the vendor's toolchain in '{folder}' has hbdk-cc {compiler}, this package is made for "
            f"{COMPILER}: {_SET_UP}"
        )
    toolchain = Toolchain(folder, python, compiler)
    _check_modules(toolchain)
    return toolchain


def _interpreter(program: Path) -> Path:
    """The Python that a program's first line names."""
    with program.open("rb") as file:
        words = os.fsdecode(file.readline().strip())[2:].split()
    if words and Path(words[0]).name == "env":
        words = [shutil.which(words[-1]) or words[-1]]
    if not words or not os.access(words[0], os.X_OK):
        raise DependencyError(
            f"'{program}' is to be run by '{' '.join(words)}', which is not there: a moved or broken "
            f"installation; {_SET_UP}"
        )
    return Path(words[0])


def _compiler_version(folder: Path) -> str:
    said = _output([str(folder / "hbdk-cc"), "--version"])
    version = re.search(r"^version: *([\d.]+)", said, re.MULTILINE)
    if version is None:
        raise DependencyError(f"'{folder / 'hbdk-cc'}' does not work ({said!r}): {_SET_UP}")
    return version[1]


def _check_modules(toolchain: Toolchain) -> None:
    # Without pkg_resources the compiler reports a library that it cannot find.
    wanted = {**_MODULES, "pkg_resources": "setuptools==65.7.0"}
    code = "import sys, importlib.util as u; print([m for m in sys.argv[1:] if not u.find_spec(m)])"
    said = _output([str(toolchain.python), "-c", code, *wanted], toolchain.environment())
    missing = [distribution for module, distribution in wanted.items() if f"'{module}'" in said]
    if missing or said.strip() != "[]":
        raise DependencyError(
            f"the vendor's toolchain in '{toolchain.programs}' cannot be used, its Python has no "
            f"{', '.join(missing) or said!r}: {_SET_UP}"
        )


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a command prints, whether it succeeds or not."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout.decode(errors="replace")


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
