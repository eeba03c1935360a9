# SPDX-License-Identifier: Apache-2.0
"""Find the vendor's PC toolchain (OpenExplorer) and check that it can be used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from repghost_ros.errors import DependencyError
from repghost_ros.paths import share

MAPPER = "hb_mapper"
PROGRAMS = (MAPPER, "hb_extract_hbm", "hb_pack", "hbdk-cc", "hbdk-perf", "hbdk-sim")
COMPILER = "3.49"
"""The releases of hbdk-cc that this package was written with and checked against, 3.49.15."""
_MODULES = {"horizon_tc_ui": "rdkx5-yolo-mapper", "hmct": "dg-nn-toolkit", "hbdk": "dgdk"}
"""Modules that its Python must be able to import -> the distribution that has them."""
_SET_UP = "`make toolchain` in a checkout of this package installs it (x86-64 Linux, Python 3.10)"


@dataclass(frozen=True)
class Toolchain:
    """An installed toolchain, complete and of a supported release."""

    programs: Path
    """The folder that holds all of PROGRAMS."""
    python: Path
    """The interpreter that they run with, which can import hmct."""
    compiler: str
    """Version of hbdk-cc."""

    def program(self, name: str) -> str:
        """Return the path of one of PROGRAMS, for subprocess."""
        return str(self.programs / name)

    def environment(self) -> dict[str, str]:
        """Return the environment for the programs, which call one another by name.

        This process's Python path is removed, because ROS puts packages of another Python there.
        """
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**own, "PATH": f"{self.programs}{os.pathsep}{own.get('PATH', os.defpath)}"}


def find_toolchain() -> Toolchain:
    """Return the toolchain at REPGHOST_TOOLCHAIN, else on PATH, else in the checkout.

    REPGHOST_TOOLCHAIN names a virtual environment or the folder of its programs; `make toolchain`
    makes `.venv-toolchain` in the checkout.

    Raises:
        DependencyError: there is none, or it is incomplete, broken or of another release.

    """
    given = os.environ.get("REPGHOST_TOOLCHAIN")
    on_path = shutil.which(MAPPER)
    if given:
        folder = Path(given).expanduser().absolute()
        folder = folder / "bin" if (folder / "bin").is_dir() else folder
    elif on_path:
        folder = Path(on_path).absolute().parent
    else:
        folder = share() / ".venv-toolchain" / "bin"
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if len(missing) == len(PROGRAMS):
        where = (
            f"not in '{folder}', which REPGHOST_TOOLCHAIN names"
            if given
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
    """Return the Python in a program's first line."""
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
    # Without pkg_resources the compiler reports a missing library.
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
    """Return a command's output, whether it succeeds or not."""
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
