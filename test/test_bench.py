# SPDX-License-Identifier: Apache-2.0
"""`repghost bench`: the demo model with ONNX Runtime, and the emulated board at a published speed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from emulator.board import Emulator, timings, write_model
from repghost_ros import open_model
from repghost_ros.cli import main
from repghost_ros.paths import share
from repghost_ros.runs.benchmark import (
    MEASURED,
    PUBLISHED,
    measure,
    parameters_m,
    published_timings,
)


def test_table_csv_and_plot(tmp_path: Path, capsys: Any) -> None:
    files = tmp_path / "out" / "bench.csv", tmp_path / "bench.png"
    command = ["bench", "--model", "demo", "--threads", "1,2", "--seconds", "0.2"]
    assert main([*command, "--csv", str(files[0]), "--plot", str(files[1]), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["threads"] for row in rows] == [1, 2]
    for row in rows:
        assert row["source"] == MEASURED
        # As training/README.md counts it, less the fused norms of the convolutions.
        assert row["params_m"] == pytest.approx(1.0418, abs=0.006)
        assert 0 < row["latency_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["passes"] > 0
        assert row["fps"] > 0
    with files[0].open() as file:
        assert [line["fps"] for line in csv.DictReader(file)] == [str(row["fps"]) for row in rows]
    assert files[1].read_bytes()[:4] == b"\x89PNG"
    assert main(command) == 0
    assert "measured here" in capsys.readouterr().out


def test_the_environment_is_recorded(capsys: Any) -> None:
    command = ["bench", "--model", "demo", "--threads", "1", "--seconds", "0.5", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["warm_up_s"] == pytest.approx(0.05)
    assert {"host", "processor", "cores", "load_1min", "python"} <= told["environment"].keys()
    assert main([*command, "--end-to-end"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert (told["results"][0]["work"], whole["results"][0]["work"]) == ("inference", "end to end")


def test_an_interrupt_waits_for_the_passes() -> None:
    """Whose buffers would else be freed under them."""
    threads = threading.active_count()
    with open_model("demo", backend="onnx") as model:
        interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            measure(model, 4, 60)
        interrupt.join()
        assert threading.active_count() == threads
        assert measure(model, 1, 0.1).passes


def test_the_board_stands_beside_what_is_published(
    board: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("REPGHOST_HOME", str(tmp_path))
    path = write_model(tmp_path / "RepGhost_100_224x224_nv12.bin", **timings("100"))
    # The stand-in is too small to pass for a model: as if it had been checked before.
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{checksum}  {path.name}\n")
    arguments = ["--model", "100", "--backend", "bpu", "--threads", "1,4", "--seconds", "0.3"]
    assert main(["bench", *arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["source"] for row in rows] == [MEASURED, MEASURED, PUBLISHED, PUBLISHED]
    assert rows[2:] == [vars(timing) for timing in published_timings("100")]
    assert all(row["params_m"] is None and "libdnn" in row["backend"] for row in rows[:2])
    assert board.stats()["max_in_flight"] == 4
    assert main(["bench", *arguments]) == 0
    assert "by the RDK model zoo" in capsys.readouterr().out


def test_a_failing_device_is_told(
    board: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = write_model(tmp_path / "broken.bin")
    path.write_bytes(b"no model")
    assert main(["bench", "--model", str(path)]) == 1
    assert "broken.bin" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--threads", "0"], ["--seconds", "-1"], ["--threads", "a"]])
def test_wrong_command_lines(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--model", "demo", *wrong])


def test_compiled_models_do_not_tell_their_parameters() -> None:
    assert parameters_m(Path("model.bin")) is None
    assert parameters_m(share() / "models" / "demo.onnx") == pytest.approx(1.04, abs=0.01)
