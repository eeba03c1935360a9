# SPDX-License-Identifier: Apache-2.0
"""The libdnn backend against the emulated board: layout, answers, concurrency, faults, leaks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.board import Emulator, demo_timings, fused_timings, hash_logits, timings, write_model
from repghost_ros import open_model
from repghost_ros.backends import hb_dnn
from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.libdnn import LibdnnBackend
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.engine.results import top_k
from repghost_ros.errors import BackendError
from repghost_ros.paths import share
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.vision.frame import from_array
from repghost_ros.vision.nv12 import to_nv12

RNG = np.random.default_rng(0)


def fill(slot: Any) -> np.ndarray:
    """Write a random image into a slot's buffer and return it."""
    image = RNG.integers(0, 256, slot.nv12.shape, dtype=np.uint8)
    slot.nv12[...] = image
    return image


def test_structures_have_the_vendors_layout(board: Emulator) -> None:
    for name, number in board.layout().items():
        struct, _, field = name.partition(".")
        kind = getattr(hb_dnn, struct)
        ours = getattr(kind, field).offset if field else ctypes.sizeof(kind)
        assert ours == number, name


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"aligned_width": 256},
        {"input_layout": 0},
        {"input_type": 2},
        {"input_type": 2, "aligned_width": 256},
        {"width": 32, "height": 18, "classes": 17},
        {"class_step": 4},
        {"output_dimensions": 2},
    ],
    ids=str,
)
def test_answers_follow_the_image(
    board: Emulator, tmp_path: Path, properties: dict[str, Any]
) -> None:
    backend = LibdnnBackend(write_model(tmp_path / "model.bin", **properties))
    slot = backend.open_slot()
    for _ in range(3):
        image = fill(slot)
        np.testing.assert_allclose(slot.infer(), hash_logits(image, backend.classes), atol=1e-5)
    slot.close()
    backend.close()


@pytest.mark.parametrize("output_type", [8, 11, 14], ids=["int8", "int16", "int32"])
@pytest.mark.parametrize(
    "quantization",
    [
        {"quanti": 2, "scales": 1},
        {"quanti": 2, "scales": 1000},
        {"quanti": 2, "scales": 1000, "zero_points": 1000},
        {"quanti": 1, "scales": 1},
        {"quanti": 1, "scales": 1000},
    ],
    ids=str,
)
def test_quantized_answers_are_dequantized(
    board: Emulator, tmp_path: Path, output_type: int, quantization: dict[str, int]
) -> None:
    path = write_model(tmp_path / "model.bin", output_type=output_type, **quantization)
    backend = LibdnnBackend(path)
    slot = backend.open_slot()
    image = fill(slot)
    logits, true = slot.infer(), hash_logits(image, 1000)
    slot.close()
    backend.close()
    # Half of the coarsest step; the finest clips int8 beyond 127 / 16.
    step = 3 / 8 if quantization["quanti"] == 2 else 1 / 4
    assert np.abs(logits.clip(-7.9, 7.9) - true.clip(-7.9, 7.9)).max() <= step / 2 + 1e-6


def test_slots_work_at_the_same_time(board: Emulator, tmp_path: Path) -> None:
    backend = LibdnnBackend(write_model(tmp_path / "model.bin", **timings("100")))
    slots = [backend.open_slot() for _ in range(4)]
    wrong: list[Any] = []

    def work(slot: Any) -> None:
        for _ in range(50):
            image = RNG.integers(0, 256, slot.nv12.shape, dtype=np.uint8)
            slot.nv12[...] = image
            if not np.allclose(slot.infer(), hash_logits(image, 1000), atol=1e-5):
                wrong.append(image)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in slots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert board.stats()["inferences"] == 200
    assert board.stats()["max_in_flight"] > 1  # the GIL was free while the BPU worked
    for slot in slots:
        slot.close()
    backend.close()


def test_the_whole_bpu_path_names_what_onnx_names(board: Emulator, tmp_path: Path) -> None:
    onnx = OnnxBackend(share() / "models" / "demo.onnx")
    reference, inside = onnx.open_slot(), onnx.open_slot()

    def real_logits(nv12: np.ndarray) -> np.ndarray:
        inside.nv12[...] = nv12
        return inside.infer()

    board.compute(real_logits)
    backend = LibdnnBackend(write_model(tmp_path / "demo.bin", classes=len(LABELS)))
    slot = backend.open_slot()
    for label in LABELS:
        frame = from_array(render(label, np.random.default_rng(5), 320, 240))
        to_nv12(frame, slot.nv12)
        to_nv12(frame, reference.nv12)
        theirs = top_k(reference.infer(), 5)
        assert [index for index, _ in top_k(slot.infer(), 5)] == [index for index, _ in theirs]
    slot.close()
    backend.close()


# --- batches and files of several models ---------------------------------------------------------


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"input_type": 2, "aligned_width": 256},
        {"class_step": 4},
        {"output_type": 8, "quanti": 2, "scales": 1},
        {"output_type": 14, "quanti": 2, "scales": 1000, "zero_points": 1000},
        {"output_dimensions": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True], ids=["alone", "with batch 1"])
def test_every_frame_of_a_batch_has_its_own_answer(
    board: Emulator, tmp_path: Path, properties: dict[str, Any], packed: bool
) -> None:
    path = tmp_path / "model.bin"
    if packed:
        write_model(path, {"name": "four", "batch": 4}, **properties)
    else:
        write_model(path, batch=4, **properties)
    backend = LibdnnBackend(path)
    assert (backend.batch, backend.classes) == (4, 1000)
    slot = backend.open_slot()
    assert len(slot.inputs) == 4
    assert slot.inputs[0] is slot.nv12
    for count in (4, 1, 3, 2):
        images = [RNG.integers(0, 256, slot.nv12.shape, dtype=np.uint8) for _ in range(count)]
        for buffer, image in zip(slot.inputs, images):
            buffer[...] = image
        logits = slot.infer_batch(count)
        assert logits.shape == (count, 1000)
        assert logits.dtype == np.float32
        for row, image in zip(logits, images):
            true = hash_logits(image, 1000)
            step = 3 / 8 if "quanti" in properties else 2e-5
            assert np.abs(row - true).max() <= step / 2
    slot.close()
    backend.close()


@pytest.mark.parametrize(
    ("made", "lone_us", "four_us"), [(fused_timings, 822, 1679), (demo_timings, 337, 718)]
)
def test_a_lone_frame_takes_the_small_model(
    board: Emulator,
    tmp_path: Path,
    made: Callable[[int], dict[str, int]],
    lone_us: int,
    four_us: int,
) -> None:
    path = write_model(tmp_path / "model.bin", {"name": "four", **made(4)}, **made(1))
    backend = LibdnnBackend(path)
    assert [program.batch for program in backend.programs] == [1, 4]
    slot = backend.open_slot()
    for count, busy_us in ((1, lone_us), (4, four_us), (2, four_us), (1, lone_us)):
        before = board.stats()["busy_ns"]
        slot.infer_batch(count)
        assert board.stats()["busy_ns"] - before == busy_us * 1000  # the device's own clock
    slot.close()
    backend.close()


def test_a_failed_batch_leaves_the_next_one_alone(board: Emulator, tmp_path: Path) -> None:
    backend = LibdnnBackend(write_model(tmp_path / "model.bin", batch=4))
    slot = backend.open_slot()
    board.fail("run", -6000001)
    with pytest.raises(BackendError, match="did not finish"):
        slot.infer_batch(4)
    image = fill(slot)
    np.testing.assert_allclose(slot.infer(), hash_logits(image, 1000), atol=1e-5)
    slot.close()
    backend.close()


def test_a_file_of_several_models_needs_a_name(board: Emulator, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", {"name": "small", "classes": 10})
    with pytest.raises(BackendError, match="2 models.*repghost, small with model_name"):
        LibdnnBackend(path)
    with pytest.raises(BackendError, match=r"repghost, small\), none named 'large'"):
        LibdnnBackend(path, BackendOptions(model_name="large"))
    backend = LibdnnBackend(path, BackendOptions(model_name="small"))
    slot = backend.open_slot()
    image = fill(slot)
    np.testing.assert_allclose(slot.infer(), hash_logits(image, 10), atol=1e-5)
    slot.close()
    backend.close()


def test_the_loaders_path_is_searched(library: Path, model: Path) -> None:
    program = f"""
from pathlib import Path
from repghost_ros.backends.libdnn import LibdnnBackend
print(LibdnnBackend(Path({str(model)!r})).runtime)
"""
    environment = {name: os.environ[name] for name in os.environ if name != "REPGHOST_LIBDNN"}
    environment["LD_LIBRARY_PATH"] = str(library.parent)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "libdnn 1.24.5\n", done.stderr


# --- faults --------------------------------------------------------------------------------------


def test_a_model_that_fails_its_first_inference_leaves_nothing(
    board: Emulator, model: Path
) -> None:
    board.fail("run", -6000001)
    with pytest.raises(BackendError):
        open_model(model_path=str(model))
    assert board.stats()["live_allocations"] == 0
    open_model(model_path=str(model)).close()


def test_a_missing_or_corrupt_file_is_named(board: Emulator, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="nothing.bin.*does not exist"):
        LibdnnBackend(tmp_path / "nothing.bin")
    (tmp_path / "corrupt.bin").write_bytes(bytes(100))
    with pytest.raises(BackendError, match="corrupt.bin.*invalid model, -6000002"):
        LibdnnBackend(tmp_path / "corrupt.bin")


def test_what_a_file_is_is_told_by_its_content(board: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"#B2Ehbm#" + bytes(100))
    with pytest.raises(BackendError, match="bare program for the BPU.*use the .bin"):
        LibdnnBackend(path)
    path.write_bytes((share() / "models" / "demo.onnx").read_bytes())
    with pytest.raises(BackendError, match="it is an ONNX file"):
        LibdnnBackend(path)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"inputs": 2}, "2 inputs"),
        ({"outputs": 3}, "3 outputs"),
        ({"input_type": 3}, "type 3.*input_type_rt: nv12"),
        ({"input_dimensions": 3}, "expected NV12"),
        ({"input_dimensions": -4}, "expected NV12"),
        ({"input_dimensions": 100}, "expected NV12"),
        ({"width": 223}, "one image of even"),
        ({"height": -2}, "one image of even"),
        ({"aligned_width": 208}, "208 of 224 pixels"),
        ({"output_type": 12}, "type 12"),
        ({"output_bytes": 3999}, "3999 bytes, too few"),
        ({"classes": 1}, "1xCLASSESx1x1"),
        ({"classes": -5}, "1xCLASSESx1x1"),
        ({"quanti": 7}, "unknown way: 7"),
        ({"quanti": 2, "scales": 3}, "3 quantization factors for 1000"),
        ({"quanti": 2, "scales": 1, "null_scale": 1}, "quantization factors"),
    ],
    ids=str,
)
def test_corrupt_properties_are_refused(
    board: Emulator, tmp_path: Path, properties: dict[str, int], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        LibdnnBackend(write_model(tmp_path / "model.bin", **properties))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("flush", "cannot be flushed.*-6000001"),
        ("infer", "BPU refused.*task num exceed limit"),
        ("run", "did not finish"),
        ("wait", "did not finish"),
    ],
)
def test_a_failed_inference_is_told_and_the_next_one_works(
    board: Emulator, model: Path, operation: str, reason: str
) -> None:
    backend = LibdnnBackend(model)
    slot = backend.open_slot()
    board.fail(operation, -6000009 if operation == "infer" else -6000001)
    with pytest.raises(BackendError, match=reason):
        slot.infer()
    image = fill(slot)
    np.testing.assert_allclose(slot.infer(), hash_logits(image, 1000), atol=1e-5)
    slot.close()
    backend.close()


def test_a_hanging_bpu_is_timed_out(board: Emulator, model: Path) -> None:
    backend = LibdnnBackend(model, BackendOptions(timeout_s=0.05))
    slot = backend.open_slot()
    board.fail("hang", 60_000)
    with pytest.raises(BackendError, match="within 50 ms .timeout"):
        slot.infer()
    image = fill(slot)
    np.testing.assert_allclose(slot.infer(), hash_logits(image, 1000), atol=1e-5)
    slot.close()
    backend.close()


def test_a_full_memory_is_told_and_leaks_nothing(board: Emulator, model: Path) -> None:
    backend = LibdnnBackend(model)
    board.fail("alloc", -6000130)
    with pytest.raises(BackendError, match="no 75264 bytes for another worker .out of memory"):
        backend.open_slot()
    backend.close()


def test_closing_in_any_order_frees_everything_once(board: Emulator, model: Path) -> None:
    backend = LibdnnBackend(model)
    slots = [backend.open_slot() for _ in range(3)]
    slots[1].close()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.open_slot()
    image = fill(slots[0])  # the model lives as long as its slots
    np.testing.assert_allclose(slots[0].infer(), hash_logits(image, 1000), atol=1e-5)
    for slot in slots:
        slot.close()
        slot.close()


def test_it_takes_core_and_priority(board: Emulator, model: Path) -> None:
    backend = LibdnnBackend(model, BackendOptions(bpu_core=1, bpu_priority=255))
    assert backend.runtime == "libdnn 1.24.5"
    slot = backend.open_slot()
    assert slot.infer().shape == (1000,)
    slot.close()
    backend.close()


def test_a_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    monkeypatch.delenv("REPGHOST_LIBDNN", raising=False)
    assert "hobot-dnn" in (hb_dnn.available() or "")
    monkeypatch.setenv("REPGHOST_LIBDNN", str(tmp_path / "libdnn.so"))
    assert "cannot be loaded" in (hb_dnn.available() or "")
    with pytest.raises(BackendError, match="cannot be loaded"):
        LibdnnBackend(model)
