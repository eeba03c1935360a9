# SPDX-License-Identifier: Apache-2.0
"""Finding the vendor's toolchain; stand-ins show what is said of broken ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from repghost_ros.backends import toolchain
from repghost_ros.backends.toolchain import PROGRAMS, find_toolchain
from repghost_ros.errors import DependencyError


def stand_in(folder: Path, *, compiler: str = "3.49.15", python: str = sys.executable) -> Path:
    """Make a folder with all programs, which know nothing but a version."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f"#!{python}\nprint('version: {compiler}')\n")
        program.chmod(0o755)
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No toolchain on this machine."""
    monkeypatch.delenv("REPGHOST_TOOLCHAIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(toolchain, "share", lambda: tmp_path / "checkout")


def test_the_real_one_is_found_and_complete() -> None:
    try:
        found = find_toolchain()
    except DependencyError as error:
        pytest.skip(str(error))
    assert found.compiler.startswith("3.49.")
    assert Path(found.program("hb_mapper")).is_file()
    assert found.environment()["PATH"].split(os.pathsep)[0] == str(found.programs)
    assert "PYTHONPATH" not in found.environment()


@pytest.mark.usefixtures("nowhere")
def test_none_at_all() -> None:
    with pytest.raises(DependencyError, match="neither on PATH .* `make toolchain`"):
        find_toolchain()


@pytest.mark.usefixtures("nowhere")
def test_named_but_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPGHOST_TOOLCHAIN", str(tmp_path))
    with pytest.raises(DependencyError, match="REPGHOST_TOOLCHAIN names"):
        find_toolchain()


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    "where",
    ["REPGHOST_TOOLCHAIN", "its programs", "PATH", "the checkout"],
)
def test_everywhere_it_may_be(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_check_modules", lambda _: None)
    environment = tmp_path / "checkout" / ".venv-toolchain"
    folder = stand_in(environment / "bin")
    if where == "REPGHOST_TOOLCHAIN":
        monkeypatch.setenv("REPGHOST_TOOLCHAIN", str(environment))
    elif where == "its programs":
        monkeypatch.setenv("REPGHOST_TOOLCHAIN", str(folder))
    elif where == "PATH":
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setattr(toolchain, "share", lambda: tmp_path)
    found = find_toolchain()
    assert found.programs == folder
    assert found.python == Path(sys.executable)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no simulator", "has no hbdk-sim"),
        ("older", "hbdk-cc 3.37.2, this package is made for 3.49"),
        ("moved", "'/gone/python', which is not there"),
        ("silent", "does not work"),
        ("no modules", "its Python has no .*dg-nn-toolkit"),
    ],
)
def test_broken_ones(
    fault: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stand_in(
        tmp_path / "bin",
        compiler={"older": "3.37.2", "silent": "?"}.get(fault, "3.49.15"),
        python="/gone/python" if fault == "moved" else sys.executable,
    )
    if fault == "no simulator":
        (folder / "hbdk-sim").unlink()
    monkeypatch.setenv("REPGHOST_TOOLCHAIN", str(folder))
    with pytest.raises(DependencyError, match=said):
        find_toolchain()
