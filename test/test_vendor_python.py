"""The backend on the vendor's Python package, hobot_dnn, against its emulation."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emulator.board import Emulator, hash_logits, write_model
from repghost_ros.backends.hobot_dnn import HobotDnnBackend
from repghost_ros.errors import BackendError

VENDOR = Path(__file__).parent.parent / "emulator" / "vendor"


@pytest.fixture
def vendor(board: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The emulated packages can be imported."""
    monkeypatch.syspath_prepend(str(VENDOR))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "hobot_dnn"]:
        del sys.modules[name]
    gc.collect()  # the packages free their buffers when their objects go


def test_answers_follow_the_image(vendor: None, model: Path) -> None:
    backend = HobotDnnBackend(model)
    assert (backend.width, backend.height, backend.classes) == (224, 224, 1000)
    slot = backend.open_slot()
    for seed in range(3):
        slot.nv12[...] = np.random.default_rng(seed).integers(0, 256, slot.nv12.shape)
        np.testing.assert_allclose(slot.infer(), hash_logits(slot.nv12, 1000), atol=1e-5)
    slot.close()
    backend.close()


def test_threads_get_their_own_answers(vendor: None, board: Emulator, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.bin", exclusive_us=500, overhead_us=500)
    backend = HobotDnnBackend(model)
    wrong: list[int] = []

    def work(seed: int) -> None:
        slot = backend.open_slot()
        slot.nv12[...] = np.random.default_rng(seed).integers(0, 256, slot.nv12.shape)
        for _ in range(20):
            if not np.allclose(slot.infer(), hash_logits(slot.nv12, 1000), atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert board.stats()["max_in_flight"] == 1  # it never lets two tasks onto the device
    backend.close()


def test_hobot_dnn_says_once_that_it_holds_the_gil(
    vendor: None, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = HobotDnnBackend(model)
    for _ in range(3):
        backend.open_slot().infer()
    assert caplog.text.count("holds Python's lock") == 1
    backend.close()


def test_faults_are_told(vendor: None, board: Emulator, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="does not exist"):
        HobotDnnBackend(tmp_path / "nothing.bin")
    (tmp_path / "corrupt.bin").write_bytes(bytes(100))
    with pytest.raises(BackendError, match="corrupt.bin.*cannot be loaded"):
        HobotDnnBackend(tmp_path / "corrupt.bin")
    backend = HobotDnnBackend(write_model(tmp_path / "model.bin"))
    slot = backend.open_slot()
    board.fail("run", -6000001)
    with pytest.raises(BackendError, match="hobot_dnn failed"):
        slot.infer()
    assert slot.infer().shape == (1000,)
    slot.close()
    backend.close()


def test_a_missing_package_says_what_to_install(model: Path) -> None:
    with pytest.raises(BackendError, match="hobot_dnn is not installed.*board's image"):
        HobotDnnBackend(model)
