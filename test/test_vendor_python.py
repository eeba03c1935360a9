# SPDX-License-Identifier: Apache-2.0
"""The backend on the vendor's Python package, hobot_dnn.

Here against its emulation; on aarch64 (`make test-arm`) the same tests run against the vendor's own
binary from PyPI, which proves the emulation true.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.board import Emulator, hash_logits, write_model
from repghost_ros.backends import hobot_dnn
from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.hobot_dnn import HobotDnnBackend
from repghost_ros.errors import BackendError

VENDOR = Path(__file__).parent.parent / "emulator" / "vendor"
PACKAGES = ("hobot_dnn", "hobot_dnn_rdkx5")
REAL = find_spec("hobot_dnn_rdkx5") is not None


def forget_packages() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.fixture
def vendor(board: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the packages importable, with nothing loaded."""
    monkeypatch.setattr(hobot_dnn, "_loaded", {})
    if not REAL:
        monkeypatch.syspath_prepend(str(VENDOR))
    yield
    if not REAL:
        forget_packages()
    board.restart()  # the package releases nothing


def fill(slot: Any, seed: int = 0) -> np.ndarray:
    slot.nv12[...] = np.random.default_rng(seed).integers(0, 256, slot.nv12.shape)
    image: np.ndarray = slot.nv12
    return image


@pytest.mark.parametrize(
    "properties",
    [{}, {"input_type": 2}, {"input_type": 2, "width": 212, "height": 212}, {"aligned_width": 256}],
    ids=str,
)
def test_answers_follow_the_image(vendor: None, tmp_path: Path, properties: dict[str, int]) -> None:
    backend = HobotDnnBackend(write_model(tmp_path / "model.bin", **properties))
    side = properties.get("width", 224)
    assert (backend.width, backend.height, backend.classes) == (side, side, 1000)
    slot = backend.open_slot()
    for seed in range(3):
        image = fill(slot, seed)
        logits = slot.infer()
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, hash_logits(image, 1000), atol=1e-5)
        np.testing.assert_array_equal(slot.infer_batch(1)[0], logits)
    slot.close()
    backend.close()


@pytest.mark.parametrize("output_type", [8, 11, 14], ids=["int8", "int16", "int32"])
@pytest.mark.parametrize("scales", [1, 1000])
def test_quantized_answers_are_dequantized(
    vendor: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, output_type: int, scales: int
) -> None:
    path = write_model(tmp_path / "model.bin", output_type=output_type, quanti=2, scales=scales)
    backend = HobotDnnBackend(path)
    assert "taken as symmetric" in caplog.text
    slot = backend.open_slot()
    image = fill(slot)
    difference = slot.infer() - hash_logits(image, 1000)
    assert np.abs(difference).max() <= 3 / 8 / 2 + 1e-6  # half of the coarsest step


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"output_type": 8, "quanti": 1, "scales": 1}, "int8 with 0 scales.*libdnn"),
        ({"class_step": 4}, "padded from .1, 1000, 1, 1. to .1, 1000, 1, 4..*libdnn"),
        ({"input_type": 3}, "YUV444: expected NV12"),
        ({"outputs": 2}, "one input and one output"),
        ({"width": 223}, "one image of even"),
        ({"batch": 4}, "batches of 4 images.*use bpu_runtime libdnn"),
        ({"classes": 1}, "1xCLASSESx1x1"),
    ],
    ids=str,
)
def test_models_that_it_cannot_answer_for_are_refused(
    vendor: None, tmp_path: Path, properties: dict[str, int], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        HobotDnnBackend(write_model(tmp_path / "model.bin", **properties))


def test_an_empty_answer_is_refused(vendor: None, tmp_path: Path) -> None:
    backend = HobotDnnBackend(write_model(tmp_path / "model.bin", output_dimensions=2))
    with pytest.raises(BackendError, match=r"answered with shape \(.*\) for 1000 classes"):
        backend.open_slot().infer()


def test_threads_get_their_own_answers(vendor: None, board: Emulator, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.bin", exclusive_us=500, overhead_us=500)
    # The model is loaded once, and its lock shared by all who opened it.
    backends = [HobotDnnBackend(model) for _ in range(4)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        slot = backends[seed].open_slot()
        image = fill(slot, seed)
        for _ in range(20):
            if not np.allclose(slot.infer(), hash_logits(image, 1000), atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert board.stats()["max_in_flight"] == 1  # it never lets two tasks onto the device


def test_it_says_once_that_it_holds_the_lock(
    vendor: None, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = HobotDnnBackend(model)
    for _ in range(3):
        backend.open_slot().infer()
    assert caplog.text.count("holds Python's lock") == 1


def test_core_and_priority_reach_the_device(vendor: None, model: Path) -> None:
    slot = HobotDnnBackend(model, BackendOptions(bpu_core=1, bpu_priority=255)).open_slot()
    assert slot.infer().shape == (1000,)
    for options in (BackendOptions(bpu_core=2), BackendOptions(bpu_priority=256)):
        with pytest.raises(BackendError, match=r"forward execution failed"):  # the device refuses
            HobotDnnBackend(model, options).open_slot().infer()


def test_a_model_is_loaded_once(vendor: None, board: Emulator, model: Path) -> None:
    for _ in range(20):
        backend = HobotDnnBackend(model)
        backend.open_slot().infer()
        backend.close()
    assert (board.stats()["live_models"], board.stats()["live_allocations"]) == (1, 2)


def test_a_process_cannot_fill_the_devices_memory(
    vendor: None, board: Emulator, tmp_path: Path
) -> None:
    for number in range(8):
        HobotDnnBackend(write_model(tmp_path / f"{number}.bin")).close()
    with pytest.raises(BackendError, match="never releases.*loaded 8.*restart.*libdnn"):
        HobotDnnBackend(write_model(tmp_path / "8.bin"))
    assert board.stats()["live_models"] == 8
    HobotDnnBackend(tmp_path / "0.bin").close()


def test_a_changed_file_is_loaded_afresh(vendor: None, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin")
    assert HobotDnnBackend(path).classes == 1000
    assert HobotDnnBackend(write_model(path, classes=10)).classes == 10


def test_faults_are_told(vendor: None, board: Emulator, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="does not exist"):
        HobotDnnBackend(tmp_path / "nothing.bin")
    (tmp_path / "corrupt.bin").write_bytes(bytes(100))
    reason = "corrupt.bin' cannot be loaded: .*bayes-e.*hbDNNInitializeFromFiles failed"
    with pytest.raises(BackendError, match=reason):
        HobotDnnBackend(tmp_path / "corrupt.bin")
    slot = HobotDnnBackend(write_model(tmp_path / "model.bin")).open_slot()
    for operation, number in (("infer", 1), ("run", 2), ("wait", 3)):
        board.fail(operation, -6000001)
        reason = f"failed: forward execution failed.*{number} times so far.*32 tasks"
        with pytest.raises(BackendError, match=reason):
            slot.infer()
        assert slot.infer().shape == (1000,)
    assert board.stats()["live_tasks"] == 2  # those that failed on the device


def test_the_first_of_several_models_is_loaded(vendor: None, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", {"name": "second", "classes": 10})
    assert HobotDnnBackend(path).classes == 1000
    assert HobotDnnBackend(path, BackendOptions(model_name="repghost")).classes == 1000
    with pytest.raises(BackendError, match=r"\(repghost\).*model_name.*libdnn"):
        HobotDnnBackend(path, BackendOptions(model_name="second"))


def test_a_hanging_device_stops_all_of_python(vendor: None, board: Emulator, model: Path) -> None:
    """Confirm the warning: a package that released the lock would fail this."""
    slot = HobotDnnBackend(model).open_slot()
    board.fail("hang", 300)
    begun, ticks = threading.Event(), []

    def infer() -> None:
        begun.set()
        slot.infer()

    switch = sys.getswitchinterval()
    thread = threading.Thread(target=infer)
    thread.start()
    begun.wait()
    while thread.is_alive():
        ticks.append(board.stats()["inferences"])
        thread.join(0.001)
    assert sys.getswitchinterval() == switch
    assert len(ticks) < 50  # 300 ms would have room for some 300


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.skipif(REAL, reason="the emulation alone goes by both names")
def test_it_goes_by_two_names(
    vendor: None, model: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    forget_packages()
    other = next(name for name in PACKAGES if name != package)
    monkeypatch.setitem(sys.modules, other, None)
    assert hobot_dnn.library().__name__ == f"{package}.pyeasy_dnn"
    assert HobotDnnBackend(model).open_slot().infer().shape == (1000,)


@pytest.mark.skipif(REAL, reason="it is installed")
def test_a_missing_package_says_what_to_install(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(hobot_dnn, "_loaded", {})
    with pytest.raises(BackendError, match="hobot_dnn is not installed.*board's image.*numpy<2"):
        HobotDnnBackend(model)
    assert not caplog.text


@pytest.mark.skipif(REAL, reason="it is installed")
def test_a_broken_package_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hobot_dnn_rdkx5"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "pyeasy_dnn.py").write_text("raise ImportError('numpy.core.multiarray failed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    reason = "hobot_dnn_rdkx5.pyeasy_dnn cannot be imported .ImportError: numpy.core.*numpy<2"
    with pytest.raises(BackendError, match=reason):
        hobot_dnn.library()
    forget_packages()
