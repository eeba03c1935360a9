"""The backends on the vendor's Python packages, hobot_dnn and hbm_runtime, against emulations."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.board import Emulator, hash_logits, write_model
from repghost_ros.backends import (
    BackendOptions,
    bpu_availability,
    choose_backend,
    choose_bpu_runtime,
    open_backend,
)
from repghost_ros.errors import BackendError

VENDOR = Path(__file__).parent.parent / "emulator" / "vendor"
RUNTIMES = ("hobot_dnn", "hbm_runtime")


@pytest.fixture
def vendor(board: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The emulated packages can be imported."""
    monkeypatch.syspath_prepend(str(VENDOR))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in (*RUNTIMES, "emulated")]:
        del sys.modules[name]
    gc.collect()  # the packages free their buffers when their objects go


def opened(path: Path, runtime: str, **options: Any) -> Any:
    return open_backend(path, BackendOptions(bpu_runtime=runtime, **options))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_follow_the_image(vendor: None, model: Path, runtime: str) -> None:
    backend = opened(model, runtime)
    assert (backend.width, backend.height, backend.classes) == (224, 224, 1000)
    slot = backend.open_slot()
    for seed in range(3):
        slot.nv12[...] = np.random.default_rng(seed).integers(0, 256, slot.nv12.shape)
        np.testing.assert_allclose(slot.infer(), hash_logits(slot.nv12, 1000), atol=1e-5)
    slot.close()
    backend.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_get_their_own_answers(
    vendor: None, board: Emulator, tmp_path: Path, runtime: str
) -> None:
    model = write_model(tmp_path / "model.bin", exclusive_us=500, overhead_us=500)
    backend = opened(model, runtime)
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
    assert board.stats()["max_in_flight"] == 1  # neither lets two tasks onto the device
    backend.close()


def test_hobot_dnn_says_once_that_it_holds_the_gil(
    vendor: None, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = opened(model, "hobot_dnn")
    for _ in range(3):
        backend.open_slot().infer()
    assert caplog.text.count("holds Python's lock") == 1
    backend.close()


def test_hbm_runtime_is_scheduled(vendor: None, model: Path) -> None:
    backend = opened(model, "hbm_runtime", bpu_core=2, bpu_priority=7)
    assert backend.runtime.scheduling == {
        "priority": {"repghost": 7},
        "bpu_cores": {"repghost": [1]},
    }
    backend.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_faults_are_told(vendor: None, board: Emulator, tmp_path: Path, runtime: str) -> None:
    with pytest.raises(BackendError, match="does not exist"):
        opened(tmp_path / "nothing.bin", runtime)
    (tmp_path / "corrupt.bin").write_bytes(bytes(100))
    with pytest.raises(BackendError, match="corrupt.bin.*cannot be loaded"):
        opened(tmp_path / "corrupt.bin", runtime)
    backend = opened(write_model(tmp_path / "model.bin"), runtime)
    slot = backend.open_slot()
    board.fail("run", -6000001)
    with pytest.raises(BackendError, match=f"{runtime} failed"):
        slot.infer()
    assert slot.infer().shape == (1000,)
    slot.close()
    backend.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_package_says_what_to_install(model: Path, runtime: str) -> None:
    with pytest.raises(BackendError, match=f"{runtime} is not installed.*board's? image|images of"):
        opened(model, runtime)


# --- the choice ----------------------------------------------------------------------------------


def test_without_a_board_auto_is_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPGHOST_LIBDNN", raising=False)
    assert all(bpu_availability().values())
    assert choose_backend("auto", "150") == "onnx"
    with pytest.raises(BackendError, match=r"no BPU runtime.*libdnn: .*hobot_dnn: .*installed"):
        choose_bpu_runtime()


def test_with_a_board_auto_is_the_fastest_runtime(vendor: None) -> None:
    assert list(bpu_availability().values()) == [None, None, None]
    assert choose_backend("auto", "150") == "bpu"
    assert choose_backend("auto", "demo") == "onnx"
    assert choose_bpu_runtime() == "libdnn"
    assert choose_bpu_runtime("hobot_dnn") == "hobot_dnn"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("tpu",), "unknown"),
        (("onnx", "", "model.bin"), "cannot run 'model.bin'"),
        (("auto", "", "model.txt"), "no model file"),
        (("bpu", "demo"), "ONNX only"),
    ],
)
def test_choices_that_cannot_be(arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        choose_backend(*arguments)
