# SPDX-License-Identifier: Apache-2.0
"""Each write, rename and fsync of a command fails or is its last: no file is half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from helpers.bags import sign_bag
from helpers.faulty import NOT_REACHED

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler is installed"),
    pytest.mark.timeout(600),
]
WRITERS = {
    "results.csv": ("replay", "{bag}", "--model", "demo", "--out", "{file}"),
    "results.jsonl": ("replay", "{bag}", "--model", "demo", "--out", "{file}"),
    "report.html": ("replay", "{bag}", "--model", "demo", "--report", "{file}"),
    "folded.onnx": ("export", "demo", "--fold-preprocess", "--out", "{file}"),
}


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile the library that interrupts writes."""
    assert COMPILER is not None
    library = tmp_path_factory.mktemp("faulty") / "faulty.so"
    source = HERE / "helpers" / "faulty.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sign_bag(tmp_path_factory.mktemp("bag") / "drive", 2)


def without_times(content: bytes, name: str) -> bytes | int:
    """Return what is the same in every run of a command."""
    return content.count(b"<tr>") if name.endswith(".html") else content


@pytest.mark.parametrize("how", ["fail", "kill"])
@pytest.mark.parametrize("name", WRITERS)
def test_no_file_is_half_written(
    name: str, how: str, preload: str, bag: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    path = out / name
    command = [word.format(bag=bag, file=path) for word in WRITERS[name]]
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])

    def run(nth: int) -> int:
        environment = {**os.environ, "LD_PRELOAD": preload, "PYTHONPATH": paths}
        arguments = [sys.executable, "-m", "helpers.faulty", str(out), str(nth), how, *command]
        return subprocess.run(
            arguments, env=environment, capture_output=True, timeout=100
        ).returncode

    assert run(10**9) == NOT_REACHED
    whole = without_times(path.read_bytes(), name)
    earlier = b"an earlier file"
    for nth in count(1):
        path.write_bytes(earlier)
        code = run(nth)
        if code == NOT_REACHED:
            break
        assert code == (1 if how == "fail" else -signal.SIGKILL)
        left = path.read_bytes()
        assert left == earlier or without_times(left, name) == whole
        assert run(10**9) == NOT_REACHED, "a rerun completes"
        assert without_times(path.read_bytes(), name) == whole
        assert [each.name for each in out.iterdir()] == [name], "and leaves nothing else"
    assert nth > 2
