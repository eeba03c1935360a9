# SPDX-License-Identifier: Apache-2.0
"""Every mixture of frames in a batch is answered by its own pixels, with the helper and without.

The emulated board answers with a hash of the pixels that lie in each input, so a frame that is answered
with another one's pixels, or with older ones, is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.native import CLASSES, HEIGHT, WIDTH, Guarded, packed, serialized, without_helper
from helpers.pipeline import Inbox
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.board import Emulator, hash_logits, write_model
from repghost_ros import open_model
from repghost_ros.engine.model import Answered, Model, Outcome
from repghost_ros.engine.pipeline import Pipeline
from repghost_ros.engine.request import Request
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import from_serialized
from repghost_ros.vision.view import View

KINDS = ("copied", "padded", "limited", "mono", "jpeg", "bad step", "bad jpeg", "failing")
REFUSED, FAILING = ("bad step", "bad jpeg"), "failing"
FULL, LIMITED = View(source_color_range="full"), View(source_color_range="limited")
MARK = (0, 255, 0, 255)
"""First pixels of a frame for which the device answers NaN."""


@dataclass(frozen=True)
class Sent:
    """A frame that is sent."""

    camera: int
    kind: str
    seed: int

    def request(self) -> Request[Serialized]:
        rng = np.random.default_rng(self.seed)
        if "jpeg" in self.kind:
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
            raw = packed(jpeg if self.kind == "jpeg" else jpeg[: len(jpeg) // 2])
            return Request(Serialized(Guarded(raw), compressed=True), from_serialized, FULL)
        step = {"padded": WIDTH + 10, "bad step": 3}.get(self.kind, WIDTH)
        data = bytearray(rng.bytes(step * HEIGHT * 3 // 2))
        if self.kind == FAILING:
            data[: len(MARK)] = MARK
        if self.kind == "mono":
            raw = serialized(encoding="mono8", data=bytes(data[: WIDTH * HEIGHT]))
        else:
            raw = serialized(step=step, data=bytes(data))
        view = LIMITED if self.kind == "limited" else FULL
        return Request(Serialized(Guarded(raw), compressed=False), from_serialized, view)


def answer(nv12: np.ndarray) -> np.ndarray:
    logits = hash_logits(nv12, CLASSES)
    if tuple(nv12[0, : len(MARK)]) == MARK:
        logits[3] = np.nan
    return logits


def logits_alone(sent: Sent) -> np.ndarray:
    """Compute the answer to a frame's own pixels without batch, slot or device."""
    request = sent.request()
    nv12 = np.empty((HEIGHT * 3 // 2, WIDTH), np.uint8)
    request.view.plan(from_serialized(request.message), nv12, "full").run()
    return answer(nv12)


@pytest.fixture
def models(board: Emulator, tmp_path: Path) -> Iterator[Any]:
    """Yield a function that opens the model of a batch size: for that alone, or single frames too."""
    board.compute(answer)
    opened: dict[tuple[int, bool], Model] = {}

    def model(batch: int, with_single: bool) -> Model:
        if (batch, with_single) not in opened:
            path = tmp_path / f"{batch}{with_single}.bin"
            shape = {"width": WIDTH, "height": HEIGHT, "classes": CLASSES}
            further = [{"name": "one", "batch": 1}] if with_single and batch > 1 else []
            write_model(path, *further, batch=batch, **shape)
            labels = tmp_path / "labels.txt"
            labels.write_text("".join(f"class {i}\n" for i in range(CLASSES)))
            opened[batch, with_single] = open_model(
                model_path=str(path), labels_path=str(labels), backend="bpu"
            )
        return opened[batch, with_single]

    yield model
    for each in opened.values():
        each.close()


def outcomes(model: Model, frames: list[Sent]) -> dict[Sent, Outcome[Request[Serialized]]]:
    """Run frames that all wait through a pipeline with one worker; return their outcomes."""
    pipeline, inbox = Pipeline(model, workers=1), Inbox()
    streams = [pipeline.open_stream(inbox, queue_depth=8) for _ in range(3)]
    # So that the worker has seen each kind before.
    for kind in ("copied", "padded", "limited", "mono", "jpeg"):
        streams[0].submit([Sent(0, kind, 99).request()])
        pipeline.bell.ring()
    inbox.wait(5)
    inbox.outcomes.clear()
    requests = {sent.request(): sent for sent in frames}
    with pipeline._shared.lock:
        for request, sent in requests.items():
            streams[sent.camera].submit([request])
    pipeline.bell.ring()
    inbox.wait(len(frames))
    assert pipeline.close()
    return {requests[each.request]: each for each in inbox.outcomes}


def check(board: Emulator, model: Model, frames: list[Sent], *, device_fails: bool) -> None:
    """Every frame ends as it should, with the helper and without it."""
    ended = []
    for helper in (True, False):
        board.reset()
        if device_fails:
            board.fail("run", -6000001)
        with pytest.MonkeyPatch.context() if helper else without_helper():
            ended.append(outcomes(model, frames))
    board.reset()
    for sent in frames:
        ours, python = ended[0][sent], ended[1][sent]
        assert ours.kind == python.kind
        if isinstance(ours, Answered) and isinstance(python, Answered):
            assert sent.kind not in (*REFUSED, FAILING)
            np.testing.assert_allclose(ours.logits, logits_alone(sent), atol=1e-5)
            np.testing.assert_array_equal(ours.logits, python.logits)
            assert [each.class_id for each in ours.results] == [
                each.class_id for each in python.results
            ]
        else:
            assert str(ours.error) == str(python.error)  # type: ignore[union-attr]
            assert (ours.kind == "refused") == (sent.kind in REFUSED)
            assert device_fails or sent.kind in (*REFUSED, FAILING)


def test_every_order_of_every_mixture_of_two_and_three_frames(board: Emulator, models: Any) -> None:
    kinds = ("copied", "jpeg", "bad step", "bad jpeg", "failing")
    for count in (2, 3):
        for mixture in product(kinds, repeat=count):
            frames = [Sent(i % 2, kind, i) for i, kind in enumerate(mixture)]
            check(board, models(4, True), frames, device_fails=False)


@settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KINDS)), min_size=1, max_size=8),
    batch=st.integers(1, 8),
    with_single=st.booleans(),
    device_fails=st.booleans(),
)
def test_any_mixture_of_any_cameras_in_any_batch(
    board: Emulator,
    models: Any,
    kinds: list[tuple[int, str]],
    batch: int,
    with_single: bool,
    device_fails: bool,
) -> None:
    frames = [Sent(camera, kind, seed) for seed, (camera, kind) in enumerate(kinds)]
    check(board, models(batch, with_single), frames, device_fails=device_fails)
