# SPDX-License-Identifier: Apache-2.0
"""Build and loading of the compiled helper: by setup.py, without a compiler, or not at all."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import emulator.board
import repghost_ros.native as native

ROOT = Path(__file__).parent.parent
LIBRARY = f"repghost_ros/native/compiled{EXTENSION_SUFFIXES[0]}"
TOLD = "import repghost_ros.native as native; print(native.__file__, native.library() is not None)"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the package's sources, as cloned: nothing of them is compiled yet."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("repghost_ros", "resource"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "setup.py", tmp_path)
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """Run Python in that folder with its sources and return its output."""
    # `colcon test` asks for its report in PYTEST_ADDOPTS, which tests within a test would overwrite.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(folder: Path, **environment: str) -> str:
    return run(folder, "setup.py", "build_ext", "--inplace", **environment)


def test_it_is_loaded_where_setup_builds_it(checkout: Path) -> None:
    build(checkout)
    module = checkout / "repghost_ros/native/__init__.py"
    assert (checkout / LIBRARY).is_file()
    assert run(checkout, "-c", TOLD, REPGHOST_NATIVE="1").split() == [str(module), "True"]
    assert run(checkout, "-c", TOLD, REPGHOST_NATIVE="0").split() == [str(module), "False"]


@pytest.mark.parametrize("compiler", ["/bin/false", "/absent/cc"])
def test_without_a_compiler_it_is_left_out(checkout: Path, compiler: str) -> None:
    told = build(checkout, CC=compiler)
    assert 'building extension "repghost_ros.native.compiled" failed' in told
    assert not list(checkout.rglob("*.so"))
    assert run(checkout, "-c", TOLD).split()[1:] == ["False"]


@pytest.mark.parametrize(
    "source", ["setup.py", "repghost_ros/native/cdr.h", "repghost_ros/native/publish.c"]
)
def test_a_changed_source_is_compiled_again(checkout: Path, source: str) -> None:
    build(checkout)
    assert "gcc" not in build(checkout, CC="gcc")
    later = (checkout / LIBRARY).stat().st_mtime + 2  # distutils compares whole seconds
    os.utime(checkout / source, (later, later))
    assert "gcc" in build(checkout, CC="gcc")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
@pytest.mark.skipif(os.environ.get("REPGHOST_NATIVE") == "0", reason="it is turned off")
def test_it_is_built_here() -> None:
    """Else test_native.py would be skipped unnoticed."""
    assert native.library() is not None, "run `make venv`, or python3 setup.py build_ext --inplace"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("sanitizers", "runtimes", "tests"),
    [
        (
            "address,undefined",
            ["asan", "ubsan"],
            ["test/test_native.py", "test/test_nv12.py::test_nothing_is_read_outside_the_message"],
        ),
        # Only those with threads: with Hypothesis's hundreds of examples it would take minutes.
        (
            "thread",
            ["tsan"],
            ["test/test_native.py", "test/test_libdnn.py", "-k", "at_the_same_time"],
        ),
    ],
    ids=["address", "thread"],
)
def test_it_is_right_under_the_sanitizers(
    checkout: Path, sanitizers: str, runtimes: list[str], tests: list[str]
) -> None:
    """Nothing out of bounds, undefined or racing in all that its tests do, nor in the emulator."""
    preloaded = [
        subprocess.run(
            ["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in runtimes
    ]
    if not all(map(os.path.isfile, preloaded)):
        pytest.skip(f"gcc has no {' or '.join(runtimes)} here")
    for name in ("test", "emulator", "pyproject.toml"):
        (checkout / name).symlink_to(ROOT / name)
    compiler = ["gcc", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    sources = sorted(map(str, (checkout / "repghost_ros/native").glob("*.c")))
    options = "-std=gnu11 -O1 -Wall -Wextra -Werror -ffp-contract=off -shared -fPIC"
    subprocess.run(
        [*compiler, *options.split(), "-o", str(checkout / LIBRARY), *sources, "-lm"], check=True
    )
    environment = {
        "LD_PRELOAD": " ".join(preloaded),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps memory until it ends
        "REPGHOST_EMULATOR": str(emulator.board.build(checkout, compiler)),
    }
    run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, **environment)


def test_loops_over_pixels_are_vectorized_for_neon() -> None:
    """As gcc reports; picking points is left out, which no instruction of NEON does."""
    compiler = os.environ.get("REPGHOST_CROSS_GCC") or shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("there is no aarch64-linux-gnu-gcc, nor REPGHOST_CROSS_GCC")
    source = ROOT / "repghost_ros/native/pixels.c"
    options = "-std=gnu11 -O3 -ffp-contract=off -fPIC -S -o /dev/null -fopt-info-vec"
    told = subprocess.run(
        [*shlex.split(compiler), *options.split(), str(source)],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    vectorized = set()
    lines = source.read_text(encoding="utf-8").splitlines()
    for number in re.findall(r":(\d+):\d+: optimized: loop vectorized using 16 byte", told):
        # The function around the loop begins at the last line before it that is not indented.
        heads = (re.match(r"\w.*?(\w+)\(", line) for line in reversed(lines[: int(number)]))
        vectorized.add(next(head[1] for head in heads if head))
    expected = ("blend", "weave_units", "weigh", "halve", "mix_one", "mix_two", "repghost_relevel")
    assert vectorized == set(expected), told


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the paths at which the loader now looks for the library."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.delenv("REPGHOST_NATIVE", raising=False)
    return tmp_path / Path(LIBRARY).name


def load() -> object:
    return native.library.__wrapped__()


def test_a_missing_library_is_no_warning(beside: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load() is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("int repghost_layout[5] = {99};", "is of another version"),
        ("int something_else(void) { return 1; }", "cannot be loaded"),
        (None, "cannot be loaded"),
    ],
    ids=["other_version", "other_library", "no_library"],
)
def test_another_library_is_refused_with_a_warning(
    beside: Path, source: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    if source is None:
        beside.write_text("<html>not found</html>")
    else:
        compiler = ["gcc", "-shared", "-fPIC", "-o", str(beside), "-x", "c", "-"]
        subprocess.run(compiler, input=source, text=True, check=True)
    assert load() is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.getMessage()
    assert str(beside) in record.getMessage()
