# SPDX-License-Identifier: Apache-2.0
"""The frame pipeline with backends that the tests hold back: order, bounds, faults, swaps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repghost_ros.backends.base import SingleSlot
from repghost_ros.errors import BackendError, FrameError
from repghost_ros.model import Model
from repghost_ros.stream.job import Counts, Job, Outcome
from repghost_ros.stream.pipeline import Pipeline
from repghost_ros.vision.frame import Frame, from_array

WAIT = 10.0


class HeldBackend:
    """Answers the number written into its input, once `gate(number)` is set."""

    runtime = "held"
    width = height = 2
    classes = 1
    batch = 1
    labels: tuple[str, ...] = ()

    def __init__(self, room: int = 64, *, open_gates: bool = True, offset: int = 0) -> None:
        self.room = room
        self.offset = offset
        self.open_gates = open_gates
        self.gates: dict[int, threading.Event] = {}
        self.lock = threading.Lock()
        self.begun = threading.Semaphore(0)
        self.open_slots = 0
        self.most_at_once = 0
        self.at_once = 0

    def gate(self, number: int) -> threading.Event:
        with self.lock:
            return self.gates.setdefault(number, threading.Event())

    def open_slot(self) -> HeldSlot:
        if self.open_slots >= self.room:
            raise BackendError("no room for another slot")
        self.open_slots += 1
        return HeldSlot(self)

    def close(self) -> None:
        assert self.open_slots == 0


class HeldSlot(SingleSlot):
    def __init__(self, backend: HeldBackend) -> None:
        self.backend = backend
        self.nv12 = np.zeros((3, 2), np.uint8)
        self.closed = False

    def infer(self) -> np.ndarray:
        assert not self.closed
        number = int(self.nv12[0, 0])
        with self.backend.lock:
            self.backend.at_once += 1
            self.backend.most_at_once = max(self.backend.most_at_once, self.backend.at_once)
        self.backend.begun.release()
        if not self.backend.open_gates:
            assert self.backend.gate(number).wait(WAIT)
        with self.backend.lock:
            self.backend.at_once -= 1
        if number == 13:
            raise BackendError("the device failed")
        return np.array([number + self.backend.offset], np.float32)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with self.backend.lock:
                self.backend.open_slots -= 1


class Inbox:
    """Collects the jobs that ended; `wait(n)` until n have come."""

    def __init__(self) -> None:
        self.jobs: list[Job[Any]] = []
        self.came = threading.Semaphore(0)

    def __call__(self, job: Job[Any]) -> Outcome:
        self.jobs.append(job)
        self.came.release()
        assert job.outcome is not None
        return job.outcome

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.came.acquire(timeout=WAIT)

    @property
    def values(self) -> list[float]:
        return [float(j.logits[0]) for j in self.jobs if j.logits is not None]


def read(message: Any) -> Frame:
    """A grey picture of that level, which it keeps in full-range NV12."""
    if message == "bad":
        raise FrameError("bad frame")
    return from_array(np.full((2, 2), message, np.uint8))


def hosted(backend: HeldBackend) -> Model:
    return Model("held", Path("held.onnx"), ("only",), "full", backend)


def wait_begun(backend: HeldBackend, count: int) -> None:
    for _ in range(count):
        assert backend.begun.acquire(timeout=WAIT)


def test_answers_every_frame_in_order_whatever_finishes_first() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=3)
    stream = pipeline.open_stream(read, inbox, queue_depth=8)
    for number in range(3):
        stream.submit(number)
    wait_begun(backend, 3)
    assert backend.most_at_once == 3
    for number in (2, 1, 0):
        backend.gate(number).set()
    inbox.wait(3)
    assert inbox.values == [0, 1, 2]
    assert pipeline.close()
    assert stream.counts == Counts(received=3, answered=3)
    backend.close()


def test_newest_frames_win_when_the_device_cannot_keep_up() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(read, inbox, queue_depth=2)
    stream.submit(0)
    wait_begun(backend, 1)
    for number in range(1, 6):
        stream.submit(number)
    assert stream.counts.dropped == 3
    for number in range(6):
        backend.gate(number).set()
    inbox.wait(3)
    pipeline.close()
    assert inbox.values == [0, 4, 5]
    assert stream.counts.received == stream.counts.answered + stream.counts.dropped == 6


def test_a_slow_consumer_bounds_the_frames_in_work() -> None:
    """Answers wait for delivery in bounded number: beyond it frames stay queued, then drop."""
    release, backend = threading.Event(), HeldBackend()
    delivered: list[int] = []

    def deliver(job: Job[Any]) -> Outcome:
        assert release.wait(WAIT)
        delivered.append(job.message)
        return Outcome.ANSWERED

    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(read, deliver, queue_depth=1)
    for number in range(100):
        stream.submit(number)
    # 2 * workers may be in work and one may wait.
    assert stream.counts.received - stream.counts.dropped <= 5
    release.set()
    while stream.counts.answered + stream.counts.dropped < 100:
        threading.Event().wait(0.001)
    pipeline.close()
    assert delivered == sorted(delivered)
    assert delivered[-1] == 99


def test_a_bad_frame_and_a_failed_inference_cost_only_themselves() -> None:
    backend, inbox = HeldBackend(), Inbox()
    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(read, inbox, queue_depth=8)
    for message in (1, "bad", 13, 4):
        stream.submit(message)
    inbox.wait(4)
    pipeline.close()
    assert inbox.values == [1, 4]
    assert [type(job.error) for job in inbox.jobs] == [
        type(None),
        FrameError,
        BackendError,
        type(None),
    ]
    assert stream.counts == Counts(received=4, answered=2, refused=1, failed=1)


def test_a_consumer_that_raises_loses_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()

    def deliver(job: Job[Any]) -> Outcome:
        inbox(job)
        if job.message == 0:
            raise RuntimeError("consumer broke")
        return Outcome.ANSWERED

    pipeline = Pipeline(hosted(HeldBackend()), workers=1)
    stream = pipeline.open_stream(read, deliver, queue_depth=8)
    for number in range(3):
        stream.submit(number)
    inbox.wait(3)
    pipeline.close()
    assert inbox.values == [0, 1, 2]
    assert "consumer broke" in caplog.text
    assert stream.counts == Counts(received=3, answered=2, failed=1)


def test_closes_mid_inference_and_frees_every_slot() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(read, inbox, queue_depth=4)
    for number in range(2):
        stream.submit(number)
    wait_begun(backend, 2)
    for number in range(2, 6):
        stream.submit(number)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    backend.gate(0).set()
    backend.gate(1).set()
    closing.join(WAIT)
    backend.close()
    assert inbox.values == [0, 1]
    assert stream.counts.received == stream.counts.answered + stream.counts.dropped


def test_gives_up_what_hangs_and_answers_it_once() -> None:
    hung, fresh, inbox = HeldBackend(open_gates=False), HeldBackend(offset=100), Inbox()
    pipeline = Pipeline(hosted(hung), workers=1)
    stream = pipeline.open_stream(read, inbox, queue_depth=8)
    stream.submit(0)
    wait_begun(hung, 1)
    stream.submit(1)
    assert pipeline.oldest_in_flight() > 0
    assert not pipeline.swap(hosted(fresh), timeout_s=0.01)
    inbox.wait(2)
    assert isinstance(inbox.jobs[0].error, BackendError)
    hung.gate(0).set()  # it comes back after all: nobody waits for it
    while hung.open_slots:
        threading.Event().wait(0.001)
    stream.submit(2)
    inbox.wait(1)
    pipeline.close()
    assert inbox.values == [101, 102]
    assert stream.counts == Counts(received=3, answered=2, failed=1)


def test_swaps_models_between_two_frames_without_losing_one() -> None:
    old, new, inbox = HeldBackend(open_gates=False), HeldBackend(offset=100), Inbox()
    pipeline = Pipeline(hosted(old), workers=2)
    stream = pipeline.open_stream(read, inbox, queue_depth=8)
    for number in range(4):
        stream.submit(number)
    wait_begun(old, 2)
    swapped = threading.Thread(target=pipeline.swap, args=(hosted(new),))
    swapped.start()
    wait_begun(new, 2)  # the new model works beside the old one
    old.gate(0).set()
    old.gate(1).set()
    swapped.join(WAIT)
    old.close()
    stream.submit(4)
    inbox.wait(5)
    pipeline.close()
    new.close()
    assert inbox.values == [0, 1, 102, 103, 104]


def test_a_refused_swap_leaves_the_old_model_at_work() -> None:
    old, cramped, inbox = HeldBackend(), HeldBackend(room=1), Inbox()
    pipeline = Pipeline(hosted(old), workers=2)
    stream = pipeline.open_stream(read, inbox, queue_depth=8)
    with pytest.raises(BackendError, match="no room"):
        pipeline.swap(hosted(cramped))
    cramped.close()  # the slot it did get was given back
    stream.submit(7)
    inbox.wait(1)
    pipeline.close()
    assert inbox.values == [7]


def test_streams_take_turns() -> None:
    backend = HeldBackend(open_gates=False)
    order: list[Any] = []
    inbox = Inbox()

    def deliver(job: Job[Any]) -> Outcome:
        order.append(job.message)
        return inbox(job)

    pipeline = Pipeline(hosted(backend), workers=1)
    greedy = pipeline.open_stream(read, deliver, queue_depth=8)
    modest = pipeline.open_stream(read, deliver, queue_depth=8)
    greedy.submit(0)
    wait_begun(backend, 1)
    for number in (1, 2, 3):
        greedy.submit(number)
    modest.submit(10)
    modest.submit(11)
    for number in (0, 1, 2, 3, 10, 11):
        backend.gate(number).set()
    inbox.wait(6)
    pipeline.close()
    assert order == [0, 10, 1, 11, 2, 3]
