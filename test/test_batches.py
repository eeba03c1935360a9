# SPDX-License-Identifier: Apache-2.0
"""Models that were compiled for batches, on the emulated board: offline tools and the pipeline."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.pipeline import Inbox, submit

from emulator.board import Emulator, fused_timings, hash_logits, write_model
from repghost_ros import open_model
from repghost_ros.backends.base import BackendOptions
from repghost_ros.cli import main
from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.pipeline import Pipeline
from repghost_ros.engine.request import Counts, Request
from repghost_ros.engine.results import Reporting, top_k
from repghost_ros.errors import BackendError, FrameError
from repghost_ros.runs.batch import classify_each
from repghost_ros.vision.frame import Frame, from_array
from repghost_ros.vision.nv12 import to_nv12

WAIT = 10.0
INDEX = Reporting(class_id="index")


def picture(seed: int) -> Frame:
    rng = np.random.default_rng(seed)
    return from_array(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8))


def read(seed: Any) -> Frame:
    if seed == "bad":
        raise FrameError("bad frame")
    return picture(seed)


def expected(seed: int) -> list[str]:
    nv12 = np.empty((336, 224), np.uint8)
    to_nv12(picture(seed), nv12)
    return [str(index) for index, _ in top_k(hash_logits(nv12, 1000), 5)]


def named(outcome: Outcome[Request[Any]]) -> list[str]:
    assert isinstance(outcome, Answered)
    return [result.class_id for result in outcome.results]


@pytest.fixture(params=["batch 4 alone", "batch 1 and 4"])
def batch_model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    if request.param == "batch 4 alone":
        return write_model(path, **fused_timings(4))
    return write_model(path, {"name": "four", **fused_timings(4)}, **fused_timings(1))


def inferences(board: Emulator) -> int:
    return board.stats()["inferences"]


def test_offline_work_goes_in_batches(board: Emulator, batch_model: Path) -> None:
    items: list[Any] = list(range(30))
    items[11] = "bad"
    with open_model(model_path=str(batch_model), backend="bpu") as model:
        assert model.batch == 4
        before = inferences(board)
        outcomes = list(classify_each(model, items, read, reporting=INDEX, workers=1))
        assert inferences(board) - before < len(items)
    assert [outcome.request.message for outcome in outcomes] == items
    for outcome in outcomes:
        if outcome.request.message == "bad":
            assert outcome.kind == "refused"
        else:
            assert named(outcome) == expected(outcome.request.message)


def test_a_picture_alone_needs_no_others(board: Emulator, batch_model: Path) -> None:
    with open_model(model_path=str(batch_model), backend="bpu") as model:
        results = model.classify(picture(5), reporting=INDEX)
        assert [result.class_id for result in results] == expected(5)


def test_one_of_the_models_can_be_named(board: Emulator, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", {"name": "four", "batch": 4}, name="one")
    for name, batch in (("one", 1), ("four", 4)):
        options = BackendOptions(model_name=name)
        with open_model(model_path=str(path), backend="bpu", options=options) as model:
            assert model.batch == batch
            results = model.classify(picture(5), reporting=INDEX)
            assert [result.class_id for result in results] == expected(5)


def test_a_live_source_is_not_held_back(board: Emulator, batch_model: Path) -> None:
    """Answers are yielded with the next item, not once a batch is full."""
    yielded: list[int] = []

    def live() -> Any:
        for number in range(6):
            yield number
            answered.wait(WAIT)
            answered.clear()
        # All but the latest have come out by now.
        assert len(yielded) >= 4

    answered = threading.Event()

    def signalling(number: int) -> Frame:
        answered.set()
        return picture(number)

    with open_model(model_path=str(batch_model), backend="bpu") as model:
        for outcome in classify_each(model, live(), signalling, workers=1):
            yielded.append(outcome.request.message)
    assert yielded == list(range(6))


def test_a_batch_that_fails_on_the_device_fails_its_frames(
    board: Emulator, batch_model: Path
) -> None:
    inbox = Inbox()
    first_is_read, others_wait = threading.Event(), threading.Event()

    def held(seed: Any) -> Frame:
        if seed == 0:
            first_is_read.set()
            assert others_wait.wait(WAIT)
            board.fail("run", 0)  # the lone frame passes
            board.fail("run", -6000001)
        return read(seed)

    with open_model(model_path=str(batch_model), backend="bpu") as model:
        pipeline = Pipeline(model, workers=1)
        stream = pipeline.open_stream(inbox, queue_depth=8)
        submit(stream, 0, held, reporting=INDEX)
        assert first_is_read.wait(WAIT)
        for seed in (1, "bad", 3, 4, 5):
            submit(stream, seed, held, reporting=INDEX)
        before = inferences(board)
        others_wait.set()
        inbox.wait(6)
        assert pipeline.close()
    assert inbox.kinds == ["answered", "failed", "refused", "failed", "failed", "answered"]
    assert inbox.errors[1:5] == [BackendError, FrameError, BackendError, BackendError]
    assert named(inbox.outcomes[0]) == expected(0)
    assert named(inbox.outcomes[5]) == expected(5)
    assert inferences(board) - before == 3
    assert stream.counts == Counts(received=6, answered=2, failed=3, refused=1)


def test_bench_times_a_lone_frame_and_a_batch(
    board: Emulator, batch_model: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = ["bench", "--model", str(batch_model), "--backend", "bpu", "--threads", "1,2"]
    plot = tmp_path / "bench.png"
    assert main([*arguments, "--seconds", "0.2", "--json", "--plot", str(plot)]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [(row["threads"], row["batch"]) for row in rows] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert all(row["fps"] > 0 and row["passes"] > 0 for row in rows)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main([*arguments, "--seconds", "0.1", "--end-to-end"]) == 0
    assert "batch" in capsys.readouterr().out


def test_commands_answer_as_with_single_frames(
    board: Emulator, batch_model: Path, tmp_path: Path, capsys: Any
) -> None:
    rng = np.random.default_rng(0)
    for name in ("0", "1"):
        (tmp_path / "signs" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "signs" / name / f"{number}.png"), pixels)
    (tmp_path / "signs" / "0" / "broken.png").write_bytes(b"no picture")
    single = write_model(tmp_path / "single.bin")
    told: dict[str, Any] = {}
    for command in ("classify", "eval"):
        for model in (single, batch_model):
            chosen = ["--model", str(model), "--backend", "bpu", "--json"]
            main([command, str(tmp_path / "signs"), *chosen])
            found = json.loads(capsys.readouterr().out)["results"]
            assert len(found) == (11 if command == "classify" else 1)
            for row in found:
                row.pop("inference_ms", None)
                row.pop("model", None)
            told[model.name] = found
        assert told["single.bin"] == told["model.bin"]
