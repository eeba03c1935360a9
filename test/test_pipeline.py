# SPDX-License-Identifier: Apache-2.0
"""The frame pipeline with backends that the tests hold back: order, bounds, faults, swaps."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pipeline import WAIT, Inbox, read, submit
from helpers.waiting import wait_until

from repghost_ros.backends.base import Slot
from repghost_ros.engine.model import Answered, Model, Outcome
from repghost_ros.engine.pipeline import NOBODY, Bell, Pipeline, Stream, Wake
from repghost_ros.engine.request import Counts, Request
from repghost_ros.errors import BackendError, FrameError
from repghost_ros.vision.frame import Frame


class HeldBackend:
    """Answers the number written into its input, once `gate(number)` is set."""

    runtime = "held"
    width = height = 2
    classes = 1
    labels: tuple[str, ...] = ()

    def __init__(
        self, room: int = 64, *, open_gates: bool = True, offset: int = 0, batch: int = 1
    ) -> None:
        self.batch = batch
        self.batches: list[list[int]] = []
        """The numbers of each inference, in the order in which they ended."""
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


class HeldSlot(Slot):
    def __init__(self, backend: HeldBackend) -> None:
        self.backend = backend
        self.inputs = tuple(np.zeros((backend.batch, 3, 2), np.uint8))
        self.closed = False

    def infer_batch(self, count: int) -> np.ndarray:
        assert not self.closed
        numbers = [int(nv12[0, 0]) for nv12 in self.inputs[:count]]
        with self.backend.lock:
            self.backend.at_once += 1
            self.backend.most_at_once = max(self.backend.most_at_once, self.backend.at_once)
        self.backend.begun.release()
        if not self.backend.open_gates:
            for number in numbers:
                assert self.backend.gate(number).wait(2 * WAIT)  # no test waits as long
        with self.backend.lock:
            self.backend.at_once -= 1
            self.backend.batches.append(numbers)
        if 13 in numbers:
            raise BackendError("the device failed")
        answers = [np.nan if number == 14 else number + self.backend.offset for number in numbers]
        return np.array(answers, np.float32)[:, np.newaxis]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with self.backend.lock:
                self.backend.open_slots -= 1


def hosted(backend: HeldBackend) -> Model:
    return Model("held", Path("held.onnx"), ("only",), "full", backend)


def wait_begun(backend: HeldBackend, count: int) -> None:
    for _ in range(count):
        assert backend.begun.acquire(timeout=WAIT)


def test_answers_every_frame_in_order_whatever_finishes_first() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=3)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    for number in range(3):
        submit(stream, number)
    wait_begun(backend, 3)
    assert backend.most_at_once == 3
    for number in (2, 1, 0):
        backend.gate(number).set()
    inbox.wait(3)
    assert inbox.values == [0, 1, 2]
    assert pipeline.close()
    assert stream.counts == Counts(received=3, answered=3)
    backend.close()


def test_a_signal_ends_no_idle_worker() -> None:
    """The kernel may deliver a process's second signal to any of its threads."""
    backend, inbox = HeldBackend(), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox)
    (worker,) = pipeline._shared.workers
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        for number in range(3):
            submit(stream, number)
            inbox.wait(1)
            assert worker.ident is not None
            signal.pthread_kill(worker.ident, signal.SIGUSR1)
            worker.join(0.1)  # time to die
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert inbox.values == [0, 1, 2]
    assert worker.is_alive()
    assert pipeline.close()
    backend.close()


def test_a_closed_pipeline_leaves_no_file_open() -> None:
    def open_files() -> set[str]:
        gc.collect()
        return set(os.listdir("/proc/self/fd"))

    before = open_files()
    pipeline = Pipeline(hosted(HeldBackend()), workers=3)
    assert len(open_files()) == len(before) + 3
    assert pipeline.close()
    del pipeline
    assert open_files() == before


def test_as_many_workers_are_woken_as_frames_wait() -> None:
    bell = Bell(threading.RLock())
    first, second, last = bell.asleep = [Wake(os.eventfd(0)) for _ in range(3)]
    bell.queued = 1
    bell.ring()
    assert bell.asleep == [first, second]
    last.wait()  # else the test hangs
    waiting = threading.Thread(target=last.wait)
    waiting.start()
    waiting.join(0.05)  # time to return
    assert waiting.is_alive()
    last.wake()
    waiting.join()
    assert bell.take() is NOBODY
    bell.queued = 4
    bell.ring()
    assert bell.asleep == []
    pipeline = Pipeline(hosted(HeldBackend()), workers=1)
    stream = pipeline.open_stream(Inbox())
    for number in (1, 2):
        stream.submit([Request(number, read)])
        assert pipeline.bell.queued == number
    assert pipeline.close()


def test_a_skipped_frame_is_counted_and_needs_no_worker() -> None:
    pipeline = Pipeline(hosted(HeldBackend()), workers=1)
    stream = pipeline.open_stream(Inbox())
    stream.skip()
    assert stream.counts == Counts(received=1, skipped=1)
    assert pipeline.close()


def test_a_closed_stream_keeps_no_frame_that_waited() -> None:
    class Message:
        """Can be referred to weakly."""

    backend = HeldBackend(open_gates=False)
    pipeline = Pipeline(hosted(backend), workers=1)
    stream, message = pipeline.open_stream(Inbox()), Message()
    held_at_work(backend, stream)
    submit(stream, message)
    kept = weakref.ref(message)
    del message
    stream.close()
    assert kept() is None
    release(backend, 0)
    assert pipeline.close()
    assert stream.counts == Counts(received=2, answered=1, dropped=1)


def test_newest_frames_win_when_the_device_cannot_keep_up() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=2)
    submit(stream, 0)
    wait_begun(backend, 1)
    for number in range(1, 6):
        submit(stream, number)
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

    def deliver(_: Any, outcomes: Sequence[Outcome[Request[Any]]]) -> None:
        (outcome,) = outcomes
        assert release.wait(WAIT)
        delivered.append(outcome.request.message)

    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(deliver, queue_depth=1)
    numbers = count()

    def sent() -> int:
        submit(stream, next(numbers), lambda number: read(number % 256))
        return stream.counts.received

    wait_until(lambda: sent() and len(stream._in_order) == 4, "workers that take what they may")
    while sent() < 40:
        wait_until(lambda: pipeline.bell.asleep, "the worker that looks for another frame")
        # 2 * workers may be in work and one may wait.
        assert stream.counts.received - stream.counts.dropped == 5
    release.set()
    wait_until(lambda: not stream.counts.in_flight, "the frames that are left")
    pipeline.close()
    assert delivered == sorted(delivered)
    assert delivered[-1] == next(numbers) - 1


def test_a_bad_frame_and_a_failed_inference_cost_only_themselves() -> None:
    backend, inbox = HeldBackend(), Inbox()
    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    for message in (1, "bad", 13, 4):
        submit(stream, message)
    inbox.wait(4)
    pipeline.close()
    assert inbox.values == [1, 4]
    assert inbox.errors == [type(None), FrameError, BackendError, type(None)]
    assert stream.counts == Counts(received=4, answered=2, refused=1, failed=1)


def test_a_consumer_that_raises_loses_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox()

    def deliver(_: Any, outcomes: Sequence[Outcome[Request[Any]]]) -> None:
        (outcome,) = outcomes
        inbox(_, outcomes)
        if outcome.request.message == 0:
            raise RuntimeError("consumer broke")

    pipeline = Pipeline(hosted(HeldBackend()), workers=1)
    stream = pipeline.open_stream(deliver, queue_depth=8)
    for number in range(3):
        submit(stream, number)
    inbox.wait(3)
    pipeline.close()
    assert inbox.values == [0, 1, 2]
    assert "consumer broke" in caplog.text
    assert stream.counts == Counts(received=3, answered=2, failed=1)


def test_closes_mid_inference_and_frees_every_slot() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(inbox, queue_depth=4)
    for number in range(2):
        submit(stream, number)
    wait_begun(backend, 2)
    for number in range(2, 6):
        submit(stream, number)
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
    stream = pipeline.open_stream(inbox, queue_depth=8)
    submit(stream, 0)
    wait_begun(hung, 1)
    submit(stream, 1)
    assert pipeline.oldest_in_flight() > 0
    (worker,) = pipeline._shared.workers
    assert worker.daemon, "it would keep the process from ending"
    assert not pipeline.swap(hosted(fresh), timeout_s=0.01)
    inbox.wait(2)
    assert inbox.errors[0] is BackendError
    hung.gate(0).set()  # it comes back after all: nobody waits for it
    while hung.open_slots:
        threading.Event().wait(0.001)
    submit(stream, 2)
    inbox.wait(1)
    pipeline.close()
    assert inbox.values == [101, 102]
    assert stream.counts == Counts(received=3, answered=2, failed=1)


def test_what_waits_behind_a_hanging_frame_is_answered_once_that_is_given_up() -> None:
    """Those that are answered behind it are as many as may be in work, so no worker takes another."""
    hung, fresh, inbox = HeldBackend(open_gates=False), HeldBackend(offset=100), Inbox()
    pipeline = Pipeline(hosted(hung), workers=2)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    submit(stream, 0)
    wait_begun(hung, 1)
    for number in (1, 2, 3):
        hung.gate(number).set()
        submit(stream, number)
        wait_begun(hung, 1)
    submit(stream, 4)
    wait_until(lambda: pipeline._shared.idle, "the worker that has nothing to do")
    assert not pipeline.swap(hosted(fresh), timeout_s=0.2)  # the new workers are asleep by then
    inbox.wait(5)
    hung.gate(0).set()
    assert inbox.kinds == ["failed", *["answered"] * 4]
    assert inbox.values == [1, 2, 3, 104]
    assert pipeline.close()
    wait_until(lambda: not hung.open_slots, "the end of the worker that hung")


def test_the_oldest_frame_in_flight_has_an_age() -> None:
    backend, inbox = HeldBackend(open_gates=False), Inbox()
    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(inbox)
    assert pipeline.oldest_in_flight() == 0.0
    begun = time.monotonic()
    submit(stream, 0)
    wait_begun(backend, 1)
    second = time.monotonic()
    submit(stream, 1)
    wait_begun(backend, 1)
    age, now = pipeline.oldest_in_flight(), time.monotonic()
    assert age <= now - begun
    assert now - age <= second
    backend.gate(0).set()
    backend.gate(1).set()
    inbox.wait(2)
    assert pipeline.close()
    assert pipeline.oldest_in_flight() == 0.0


def test_swaps_models_between_two_frames_without_losing_one() -> None:
    old, new, inbox = HeldBackend(open_gates=False), HeldBackend(offset=100), Inbox()
    pipeline = Pipeline(hosted(old), workers=2)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    for number in range(4):
        submit(stream, number)
    wait_begun(old, 2)
    swapped = threading.Thread(target=pipeline.swap, args=(hosted(new),))
    swapped.start()
    wait_begun(new, 2)  # the new model works beside the old one
    old.gate(0).set()
    old.gate(1).set()
    swapped.join(WAIT)
    old.close()
    submit(stream, 4)
    inbox.wait(5)
    pipeline.close()
    new.close()
    assert inbox.values == [0, 1, 102, 103, 104]


def test_a_refused_swap_leaves_the_old_model_at_work() -> None:
    old, cramped, inbox = HeldBackend(), HeldBackend(room=1), Inbox()
    pipeline = Pipeline(hosted(old), workers=2)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    with pytest.raises(BackendError, match="no room"):
        pipeline.swap(hosted(cramped))
    cramped.close()  # the slot it did get was given back
    submit(stream, 7)
    inbox.wait(1)
    pipeline.close()
    assert inbox.values == [7]


def test_streams_take_turns() -> None:
    backend = HeldBackend(open_gates=False)
    order: list[Any] = []
    inbox = Inbox()

    def deliver(_: Any, outcomes: Sequence[Outcome[Request[Any]]]) -> None:
        order.extend(outcome.request.message for outcome in outcomes)
        inbox(_, outcomes)

    pipeline = Pipeline(hosted(backend), workers=1)
    greedy = pipeline.open_stream(deliver, queue_depth=8)
    modest = pipeline.open_stream(deliver, queue_depth=8)
    submit(greedy, 0)
    wait_begun(backend, 1)
    for number in (1, 2, 3):
        submit(greedy, number)
    submit(modest, 10)
    submit(modest, 11)
    for number in (0, 1, 2, 3, 10, 11):
        backend.gate(number).set()
    inbox.wait(6)
    pipeline.close()
    assert order == [0, 10, 1, 11, 2, 3]


# --- batches -------------------------------------------------------------------------------------


def held_at_work(backend: HeldBackend, stream: Any, number: int = 0) -> None:
    """Give the only worker a frame, so that what comes next has to wait."""
    submit(stream, number)
    wait_begun(backend, 1)


def release(backend: HeldBackend, *numbers: int) -> None:
    for number in numbers:
        backend.gate(number).set()


def wait_until_idle(pipeline: Pipeline, workers: int) -> None:
    while pipeline._shared.idle < workers:
        threading.Event().wait(0.001)


def test_a_batch_takes_what_waits_and_never_waits_for_more() -> None:
    backend, inbox = HeldBackend(open_gates=False, batch=4), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    held_at_work(backend, stream)
    for number in range(1, 8):
        submit(stream, number)
    release(backend, *range(8))
    inbox.wait(8)
    assert backend.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert inbox.values == list(range(8))
    assert pipeline.close()
    assert stream.counts == Counts(received=8, answered=8)
    backend.close()


def test_one_batch_serves_several_cameras_in_turn() -> None:
    backend, inbox, other = HeldBackend(open_gates=False, batch=4), Inbox(), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    greedy = pipeline.open_stream(inbox, queue_depth=8)
    modest = pipeline.open_stream(other, queue_depth=8)
    held_at_work(backend, greedy)
    for number in (1, 2, 3, 4):
        submit(greedy, number)
    submit(modest, 20)
    release(backend, 0, 1, 2, 3, 4, 20)
    inbox.wait(5)
    other.wait(1)
    pipeline.close()
    assert backend.batches == [[0], [20, 1, 2, 3], [4]]
    assert (inbox.values, other.values) == ([0, 1, 2, 3, 4], [20])
    assert modest.counts == Counts(received=1, answered=1)


def test_batches_are_delivered_in_order_whichever_ends_first() -> None:
    backend, inbox, other = HeldBackend(open_gates=False, batch=2), Inbox(), Inbox()
    pipeline = Pipeline(hosted(backend), workers=2)
    one = pipeline.open_stream(inbox, queue_depth=8)
    two = pipeline.open_stream(other, queue_depth=8)
    submit(one, 0)
    submit(two, 20)
    wait_begun(backend, 2)
    for number in (1, 2):
        submit(one, number)
        submit(two, 20 + number)
    release(backend, 20)  # its worker takes one frame of each camera
    wait_begun(backend, 1)
    release(backend, 1, 21)
    other.wait(2)
    assert other.values == [20, 21]  # not held up by the other camera
    assert not inbox.outcomes
    release(backend, 0, 2, 22)
    inbox.wait(3)
    other.wait(1)
    pipeline.close()
    assert (inbox.values, other.values) == ([0, 1, 2], [20, 21, 22])
    assert sorted(backend.batches[1]) == [1, 21]
    assert backend.most_at_once == 2


def test_idle_workers_share_what_waits() -> None:
    """Conversion takes longer than inference: it is not to happen on one core of several."""
    backend, inbox = HeldBackend(open_gates=False, batch=4), Inbox()
    ready = threading.Barrier(2)

    def read_together(message: Any) -> Frame:
        ready.wait(WAIT)  # two workers convert at once, or the test fails
        return read(message)

    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    wait_until_idle(pipeline, 2)
    with pipeline._shared.lock:  # both frames wait before a worker looks
        submit(stream, 1, read_together)
        submit(stream, 2, read_together)
    release(backend, 1, 2)
    inbox.wait(2)
    pipeline.close()
    assert sorted(backend.batches) == [[1], [2]]


def test_a_bad_frame_in_a_batch_costs_only_itself() -> None:
    backend, inbox = HeldBackend(open_gates=False, batch=4), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    held_at_work(backend, stream)
    for message in (1, "bad", 3, 4):
        submit(stream, message)
    release(backend, 0, 1, 3, 4)
    inbox.wait(5)
    for _ in range(4):
        submit(stream, "bad")
    inbox.wait(4)
    pipeline.close()
    assert backend.batches == [[0], [1, 3, 4]]  # and nothing was inferred for bad frames alone
    assert [each.request.message for each in inbox.outcomes] == [0, 1, "bad", 3, 4, *["bad"] * 4]
    assert inbox.values == [0, 1, 3, 4]
    assert stream.counts == Counts(received=9, answered=4, refused=5)


def test_a_failed_batch_fails_its_frames_and_no_others() -> None:
    backend, inbox, other = HeldBackend(open_gates=False, batch=4), Inbox(), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    neighbour = pipeline.open_stream(other, queue_depth=8)
    held_at_work(backend, stream)
    for message in (1, 13, "bad", 4):
        submit(stream, message)
    submit(neighbour, 20)
    release(backend, 0, 1, 13, 20, 4)
    inbox.wait(5)
    other.wait(1)
    pipeline.close()
    assert inbox.kinds == ["answered", "failed", "failed", "refused", "answered"]
    assert other.kinds == ["failed"]
    assert inbox.errors[1:3] == [BackendError, BackendError]
    assert stream.counts == Counts(received=5, answered=2, failed=2, refused=1)
    assert neighbour.counts == Counts(received=1, failed=1)


def test_an_answer_that_is_none_fails_only_its_own_frame() -> None:
    backend, inbox = HeldBackend(open_gates=False, batch=4), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    held_at_work(backend, stream)
    for number in (1, 14, 3):
        submit(stream, number)
    release(backend, 0, 1, 14, 3)
    inbox.wait(4)
    pipeline.close()
    assert inbox.kinds == ["answered", "answered", "failed", "answered"]


def test_newest_frames_win_with_batches_too() -> None:
    backend, inbox = HeldBackend(open_gates=False, batch=4), Inbox()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=3)
    held_at_work(backend, stream)
    for number in range(1, 10):
        submit(stream, number)
    assert stream.counts == Counts(received=10, dropped=6)
    release(backend, *range(10))
    inbox.wait(4)
    pipeline.close()
    assert inbox.values == [0, 7, 8, 9]
    assert stream.counts == Counts(received=10, answered=4, dropped=6)


def test_swaps_from_batches_to_single_frames_and_back() -> None:
    large, small = HeldBackend(open_gates=False, batch=4), HeldBackend(offset=100)
    inbox = Inbox()
    pipeline = Pipeline(hosted(large), workers=1)
    (at_work,) = pipeline._shared.workers
    stream = pipeline.open_stream(inbox, queue_depth=8)
    held_at_work(large, stream)
    for number in range(1, 5):
        submit(stream, number)
    release(large, 0)
    wait_begun(large, 1)  # four are in flight, more than the small model may have
    submit(stream, 5)
    submit(stream, 6)
    swapped = threading.Thread(target=pipeline.swap, args=(hosted(small),))
    swapped.start()
    while not at_work.retired:
        threading.Event().wait(0.001)
    release(large, 1, 2, 3, 4)
    swapped.join(WAIT)
    inbox.wait(7)
    large.close()
    assert inbox.values == [0, 1, 2, 3, 4, 105, 106]
    assert small.batches == [[5], [6]]
    large = HeldBackend(open_gates=False, batch=2)
    assert pipeline.swap(hosted(large))
    small.close()
    held_at_work(large, stream, 7)
    submit(stream, 8)
    submit(stream, 9)
    release(large, 7, 8, 9)
    inbox.wait(3)
    pipeline.close()
    assert large.batches == [[7], [8, 9]]
    assert stream.counts == Counts(received=10, answered=10)


def test_a_hanging_batch_is_given_up_frame_by_frame() -> None:
    hung, fresh, inbox = HeldBackend(open_gates=False, batch=4), HeldBackend(offset=100), Inbox()
    pipeline = Pipeline(hosted(hung), workers=1)
    stream = pipeline.open_stream(inbox, queue_depth=8)
    held_at_work(hung, stream)
    for message in (1, "bad", 3):
        submit(stream, message)
    release(hung, 0)
    wait_begun(hung, 1)
    assert pipeline.oldest_in_flight() > 0
    assert not pipeline.swap(hosted(fresh), timeout_s=0.01)
    inbox.wait(4)
    assert inbox.kinds == ["answered", "failed", "refused", "failed"]
    release(hung, 1, 3)
    while hung.open_slots:
        threading.Event().wait(0.001)
    submit(stream, 5)
    inbox.wait(1)
    pipeline.close()
    assert inbox.values == [0, 105]
    assert stream.counts == Counts(received=5, answered=2, failed=2, refused=1)


def test_every_frame_of_many_cameras_ends_once() -> None:
    """Batches, bad frames, failures and a swap at full speed: counts close, answers are in order."""
    backends = [HeldBackend(batch=4), HeldBackend(batch=1), HeldBackend(batch=3)]
    pipeline = Pipeline(hosted(backends[0]), workers=3)
    inboxes = [Inbox() for _ in range(4)]
    streams = [pipeline.open_stream(inbox, queue_depth=3) for inbox in inboxes]

    def send(stream: Any) -> None:
        for number in range(2000):
            submit(stream, "bad" if number % 50 == 7 else number % 251)

    senders = [threading.Thread(target=send, args=(stream,)) for stream in streams]
    for sender in senders:
        sender.start()
    for old, new in pairwise(backends):
        assert pipeline.swap(hosted(new))
        old.close()
    for sender in senders:
        sender.join()
    assert pipeline.close()
    backends[-1].close()
    for stream, inbox in zip(streams, inboxes):
        counts = stream.counts
        assert (counts.received, counts.in_flight) == (2000, 0)
        assert len(inbox.outcomes) == counts.answered + counts.failed + counts.refused
        answered = [each for each in inbox.outcomes if isinstance(each, Answered)]
        assert all(each.logits[0] == each.request.message for each in answered)
        received = [each.request.received for each in inbox.outcomes]
        assert received == sorted(received)


# --- several requests about one frame ------------------------------------------------------------


def regions(stream: Stream[Any], *numbers: Any) -> None:
    """Submit a frame with several regions, each of which is a picture of that number."""
    stream.submit([Request(number, read) for number in numbers])
    stream._shared.bell.ring()


class Frames:
    """Collects the outcomes of frames, a list for each."""

    def __init__(self) -> None:
        self.kinds: list[list[str]] = []
        self.messages: list[list[Any]] = []
        self.came = threading.Semaphore(0)

    def __call__(self, _: Any, outcomes: Sequence[Outcome[Request[Any]]]) -> None:
        self.kinds.append([outcome.kind for outcome in outcomes])
        self.messages.append([outcome.request.message for outcome in outcomes])
        self.came.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.came.acquire(timeout=WAIT)


@pytest.mark.parametrize("workers", [1, 4])
def test_regions_of_a_frame_need_as_few_inferences_as_the_batch_allows(workers: int) -> None:
    backend, frames = HeldBackend(batch=4), Frames()
    pipeline = Pipeline(hosted(backend), workers=workers)
    stream = pipeline.open_stream(frames)
    regions(stream, *range(20, 30))
    frames.wait(1)
    assert frames.messages == [list(range(20, 30))]
    assert sorted(map(len, backend.batches)) == [2, 4, 4]
    assert stream.counts == Counts(received=1, answered=1)
    assert pipeline.close(WAIT)


def test_all_workers_share_the_regions_of_a_frame() -> None:
    backend, frames = HeldBackend(open_gates=False), Frames()
    pipeline = Pipeline(hosted(backend), workers=3)
    stream = pipeline.open_stream(frames)
    regions(stream, 1, 2, 3)
    wait_begun(backend, 3)
    for number in (1, 2, 3):
        backend.gate(number).set()
    frames.wait(1)
    assert backend.most_at_once == 3
    assert pipeline.close(WAIT)


def test_frames_with_and_without_regions_keep_their_order() -> None:
    backend, frames = HeldBackend(open_gates=False, batch=2), Frames()
    pipeline = Pipeline(hosted(backend), workers=2)
    stream = pipeline.open_stream(frames, queue_depth=8)
    regions(stream)
    frames.wait(1)  # nothing is before it
    regions(stream, 1, 2, 3)
    regions(stream)
    regions(stream, 4)
    regions(stream)
    for number in (4, 3, 2, 1):
        backend.gate(number).set()
    frames.wait(4)
    assert frames.messages == [[], [1, 2, 3], [], [4], []]
    assert stream.counts == Counts(received=5, answered=5)
    assert pipeline.close(WAIT)


def test_a_frame_without_regions_lets_none_before_it_pass() -> None:
    backend, frames = HeldBackend(open_gates=False), Frames()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(frames, queue_depth=8)
    regions(stream, 1)
    wait_begun(backend, 1)
    regions(stream, 2)
    regions(stream, 3)
    regions(stream)
    release(backend, 1, 2, 3)
    frames.wait(4)
    assert frames.messages == [[1], [2], [3], []]
    assert pipeline.close(WAIT)


def test_a_frame_fails_with_any_and_is_refused_with_all_of_its_regions() -> None:
    backend, frames = HeldBackend(), Frames()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(frames, queue_depth=8)
    regions(stream, 1, "bad", 2)
    regions(stream, "bad", "bad")
    regions(stream, 1, 13, "bad")
    frames.wait(3)
    assert frames.kinds == [
        ["answered", "refused", "answered"],
        ["refused", "refused"],
        ["answered", "failed", "refused"],
    ]
    assert stream.counts == Counts(received=3, answered=1, refused=1, failed=1)
    assert pipeline.close(WAIT)


def test_a_full_queue_drops_whole_frames() -> None:
    backend, frames = HeldBackend(open_gates=False), Frames()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(frames, queue_depth=1)
    regions(stream, 1, 2)
    wait_begun(backend, 1)
    regions(stream, 3, 4)
    regions(stream, 5, 6)
    for number in range(1, 7):
        backend.gate(number).set()
    frames.wait(2)
    assert frames.messages == [[1, 2], [5, 6]]
    assert stream.counts == Counts(received=3, answered=2, dropped=1)
    assert pipeline.close(WAIT)


def test_a_frame_in_the_middle_of_its_regions_is_dropped_at_the_end() -> None:
    backend, frames = HeldBackend(open_gates=False), Frames()
    pipeline = Pipeline(hosted(backend), workers=1)
    stream = pipeline.open_stream(frames)
    regions(stream, 1, 2)
    wait_begun(backend, 1)
    closing = threading.Thread(target=pipeline.close, args=(WAIT,))
    closing.start()
    while pipeline._shared.streams:
        pass
    backend.gate(1).set()
    closing.join(WAIT)
    assert frames.messages == []
    assert stream.counts == Counts(received=1, dropped=1)


def test_a_new_model_answers_the_rest_of_a_frame() -> None:
    old, new, frames = HeldBackend(open_gates=False), HeldBackend(offset=100), Frames()
    pipeline = Pipeline(hosted(old), workers=1)
    stream = pipeline.open_stream(frames)
    regions(stream, 1, 2)
    wait_begun(old, 1)
    old.gate(1).set()
    old.gate(2).set()
    assert pipeline.swap(hosted(new), WAIT)
    frames.wait(1)
    assert frames.kinds == [["answered", "answered"]]
    assert pipeline.close(WAIT)
