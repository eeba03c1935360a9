# SPDX-License-Identifier: Apache-2.0
"""The report that a board's owner sends, on the emulated board."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.board import Emulator, timings, write_model
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.sim import CompiledBackend
from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.cli import main
from repghost_ros.cli.doctor import DoctorReport
from repghost_ros.errors import DependencyError
from repghost_ros.files import sha256
from repghost_ros.paths import share
from repghost_ros.runs import board_report
from repghost_ros.runs.board_report import CERTIFIED, Certified, cameras, frequencies, report
from repghost_ros.sources.signs import LABELS
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.model_file import read_model_file

Compute = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a share of its own and an empty store."""
    for folder in ("labels", "models"):
        shutil.copytree(share() / folder, tmp_path / folder)
    monkeypatch.setattr(board_report, "share", lambda: tmp_path)
    monkeypatch.setenv("REPGHOST_HOME", str(tmp_path / "store"))
    return tmp_path


@pytest.fixture
def demo() -> Compute:
    """Return the demo model's answers: the certified logits where there are some, else float ones."""
    certified = Certified.read(share() / "models" / CERTIFIED)
    known = {
        nv12.tobytes(): row for nv12, row in zip(certified.nv12, certified.logits, strict=True)
    }
    slot = OnnxBackend(share() / "models" / "demo.onnx").open_slot()

    def logits(nv12: np.ndarray) -> np.ndarray:
        if (row := known.get(nv12.tobytes())) is not None:
            return row
        slot.nv12[...] = nv12
        return slot.infer()

    return logits


def run() -> tuple[bool, dict[str, Any], list[dict[str, Any]]]:
    """Return whether the report has problems, its findings by subject, and its timings."""
    board = report([], seconds=0.05, threads=(1, 4))
    made = DoctorReport(board.findings, board.timings)
    content = made.as_json()
    findings = {found["subject"]: found for found in content["results"]}
    return made.failed, findings, content.get("timings", [])


def test_a_board_that_works(board: Emulator, demo: Compute) -> None:
    board.compute(demo)
    failed, findings, measured = run()
    assert not failed, findings
    assert findings["self-test"]["status"] == "ok"
    assert "51 of 51" in findings["self-test"]["detail"]
    assert "off the float model's" in findings["self-test"]["detail"]
    assert findings["certified logits"]["status"] == "ok"
    assert "6 of 6 signs" in findings["certified logits"]["detail"]
    assert findings["model demo"]["detail"].startswith("demo_224x224_nv12.bin on libdnn 1.24.5")
    properties = findings["in demo_224x224_nv12.bin"]["detail"]
    assert "[1, 3, 224, 224]" in properties
    assert f"[1, {len(LABELS)}]" in properties
    assert [(timing["model"], timing["threads"]) for timing in measured] == [
        ("demo", 1),
        ("demo", 4),
    ]


def test_models_in_the_store_are_timed_beside_what_is_published(
    board: Emulator, here: Path
) -> None:
    store = here / "store"
    store.mkdir()
    stand_in = write_model(store / MODELS["100"].file_name("bin"), **timings("100"))
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()
    stand_in.with_name(f"{stand_in.name}.sha256").write_text(f"{digest}  {stand_in.name}\n")
    failed, findings, measured = run()
    assert findings["self-test"]["status"] == "problem"  # the device answers with hashes
    assert failed
    assert findings["model 100"]["status"] == "ok"
    lines = [(timing["model"], timing["source"][:9], timing["threads"]) for timing in measured]
    assert lines[2:] == [
        *(("100", "measured ", 1), ("100", "measured ", 4)),
        *(("100", "published", 1), ("100", "published", 4)),
        *[("100", "predicted", 1)] * 3,
    ]
    predicted = MODELS["100"].predicted
    assert predicted.exported_us is not None
    assert [(timing["batch"], timing["latency_ms"]) for timing in measured[-3:]] == [
        (1, predicted.exported_us / 1e3),
        (1, predicted.fused_us[1] / 1e3),
        (4, predicted.fused_us[4] / 1e3),
    ]
    assert measured[-1]["fps"] == pytest.approx(4e6 / predicted.fused_us[4])


@pytest.mark.parametrize(
    "change",
    [
        lambda nv12: (nv12 * 0.86 + 16).astype(np.uint8),  # the wrong range of colors
        lambda nv12: np.roll(nv12, 1, axis=1),  # U and V exchanged
    ],
    ids=["range", "chroma"],
)
def test_a_board_that_sees_wrongly(board: Emulator, demo: Compute, change: Compute) -> None:
    board.compute(lambda nv12: demo(change(nv12)))
    failed, findings, _ = run()
    assert failed
    assert findings["certified logits"]["status"] == "problem", findings["certified logits"]
    assert findings["self-test"]["status"] in ("note", "problem"), findings["self-test"]


def test_a_board_that_computes_a_little_differently(board: Emulator, demo: Compute) -> None:
    """As a quantized model off by one in its integers, which changes no name."""
    board.compute(lambda nv12: demo(nv12) * 1.001)
    failed, findings, _ = run()
    assert failed
    assert findings["self-test"]["status"] == "ok"
    assert "0 of 6 signs" in findings["certified logits"]["detail"]


def test_another_demo_model_is_not_compared(board: Emulator, demo: Compute, here: Path) -> None:
    board.compute(demo)
    with (here / "models" / "demo_224x224_nv12.bin").open("ab") as file:
        file.write(b"\0")
    failed, findings, _ = run()
    assert not failed
    assert findings["certified logits"]["status"] == "note"


@pytest.mark.toolchain
def test_the_certified_logits_are_the_simulators() -> None:
    try:
        find_toolchain()
    except DependencyError as error:
        pytest.skip(str(error))
    model = share() / "models" / "demo_224x224_nv12.bin"
    certified = Certified.read(share() / "models" / CERTIFIED)
    advice = "run tools/certify_demo.py"
    assert certified.sha256 == sha256(model), advice
    slot = CompiledBackend(read_model_file(model)).open_slot()
    for nv12, logits in zip(certified.nv12, certified.logits, strict=True):
        slot.nv12[...] = nv12
        np.testing.assert_array_equal(slot.infer(), logits, advice)
    slot.close()


def test_a_board_that_fails(board: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    board.fail("load", -6000130)
    code = main(["doctor", "--board-report"])
    told = capsys.readouterr().out
    assert code == 1
    assert "problem  model demo" in told
    assert "out of memory" in told


def test_a_pc_tests_itself(demo: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPGHOST_LIBDNN", raising=False)
    _, findings, _ = run()
    assert "demo.onnx on ONNX Runtime" in findings["model demo"]["detail"]
    assert "51 of 51" in findings["self-test"]["detail"]
    assert findings["certified logits"]["status"] == "note"


def test_frequencies(tmp_path: Path) -> None:
    cpu, devfreq = tmp_path / "cpu", tmp_path / "devfreq"
    for number, governor in enumerate(("performance", "schedutil")):
        folder = cpu / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    (devfreq / "3a000000.bpu").mkdir(parents=True)
    (devfreq / "3a000000.bpu" / "cur_freq").write_text("1000000000\n")
    cpus, bpu = frequencies(cpu, devfreq)
    assert (cpus.status, cpus.detail) == ("note", "performance, schedutil")
    assert (bpu.subject, bpu.detail) == ("BPU 3a000000.bpu", "1000 MHz")


def test_cameras_are_seen() -> None:
    rclpy = pytest.importorskip("rclpy")
    from sensor_msgs.msg import Image

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("camera", context=context)
    images = node.create_publisher(Image, "/front/image_raw", 1)
    (found,) = cameras()
    assert images.topic_name == "/front/image_raw"
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert found.status == "ok", found
    assert "/front/image_raw (sensor_msgs/msg/Image, 1 publishers)" in found.detail
