# SPDX-License-Identifier: Apache-2.0
"""Bounded queues -> parallel workers -> answers in the order the frames came.

Every worker owns one slot of the model, so OpenCV, ONNX Runtime and the BPU run in parallel, without
Python's lock. Where the model takes several frames an inference, a worker takes as many as wait, of
whichever cameras, up to its share; it never waits for more. When the device cannot keep up the newest
frames win: the oldest waiting one is dropped and counted, so latency stays bounded by the queue depth.
Every frame submitted ends in exactly one count.

A frame may be asked about several of its regions: it waits, is dropped and is delivered as one, its
regions are spread over as few inferences as possible.

One lock, `_Shared.lock`, guards everything that more than one thread touches: the workers, the streams
and their order, the queues and counts of a stream, the tickets of a worker and their outcomes. Frames
are converted, inferred and delivered without the lock.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic

from repghost_ros.backends.base import Failed, Refused, Slot
from repghost_ros.engine.model import Answered, AnyRequest, Model, Outcome
from repghost_ros.engine.request import Counts
from repghost_ros.errors import BackendError

_log = logging.getLogger(__name__)
Deliver = Callable[[Sequence[AnyRequest], Sequence[Outcome[AnyRequest]]], None]
"""Called with a frame's requests, as they were submitted, and their outcomes, in their order; where it
raises, the frame has failed."""


class Wake:
    """Lets a worker sleep until it is woken, from any thread and from C.

    Args:
        descriptor: of an eventfd, or -1: there is nobody to wake.

    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def wait(self) -> None:
        """Sleep until `wake` is called; at once if it was called since the last time."""
        os.read(self.descriptor, 8)  # os.eventfd_read raises InterruptedError at a signal

    def wake(self) -> None:
        """Wake the worker."""
        if self.descriptor >= 0:
            os.eventfd_write(self.descriptor, 1)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


NOBODY = Wake(-1)


class Bell:
    """Wakes workers for queued frames; whoever submits frames rings it, or lets C do that.

    A woken worker needs Python's lock, so it had better be woken by a thread that no longer holds it.

    Args:
        lock: the pipeline's.

    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self.queued = 0
        """Frames that no worker has been woken for. Changed with the lock held."""
        self.asleep: list[Wake] = []
        """Workers that nobody wakes yet, the one that worked last, whose caches are warm, at the end.
        Changed with the lock held."""

    def take(self) -> Wake:
        """Return a worker that the caller now has to wake for a queued frame, or NOBODY."""
        with self._lock:
            if not self.queued:
                return NOBODY
            self.queued -= 1
            return self.asleep.pop() if self.asleep else NOBODY

    def ring(self) -> None:
        """Wake workers for the queued frames."""
        while (worker := self.take()) is not NOBODY:
            worker.wake()

    def wake_one(self) -> None:
        """Wake the worker that worked last, if one sleeps."""
        with self._lock:
            worker = self.asleep.pop() if self.asleep else NOBODY
        worker.wake()


@dataclass(eq=False, slots=True)
class _Ticket(Generic[AnyRequest]):
    """A frame's position in the order of its stream."""

    stream: Stream[AnyRequest]
    requests: Sequence[AnyRequest]
    taken: int = 0
    """How many of the requests workers have taken."""
    outcomes: dict[AnyRequest, Outcome[AnyRequest]] = field(default_factory=dict)
    dropped: bool = False
    """True where no worker will take the rest."""

    def drop_rest(self) -> None:
        """Let no worker take what is left. Called with the lock held."""
        self.dropped = True
        self.requests = self.requests[: self.taken]

    def end(self, outcome: Outcome[AnyRequest]) -> None:
        """Keep an outcome, unless the request was given up. Called with the lock held."""
        self.outcomes.setdefault(outcome.request, outcome)


def _kind(outcomes: Sequence[Outcome[Any]]) -> str:
    """Return the field of Counts that counts a frame with these outcomes."""
    kind = Refused.kind if outcomes else Answered.kind
    for outcome in outcomes:
        if outcome.kind == Failed.kind:
            return Failed.kind
        if outcome.kind == Answered.kind:
            kind = Answered.kind
    return kind


class _Shared:
    """The state that pipeline, streams and workers share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.bell = Bell(self.lock)
        self.streams: deque[Stream[Any]] = deque()
        """Those that take frames, in turn: the one to be asked next is the first."""
        self.workers: list[_Worker] = []
        self.limit = 0
        """How many frames of one stream may be taken and not yet delivered."""
        self.idle = 0
        """Workers that wait for a frame."""


class Stream(Generic[AnyRequest]):
    """One camera's path through a pipeline; made by `Pipeline.open_stream`."""

    def __init__(self, shared: _Shared, deliver: Deliver[AnyRequest], queue_depth: int) -> None:
        self._shared = shared
        self._deliver = deliver
        self._depth = queue_depth
        self._received = 0
        self._ended: Counter[str] = Counter()
        self._waiting: deque[_Ticket[AnyRequest]] = deque()
        self._in_order: deque[_Ticket[AnyRequest]] = deque()
        """Those that workers have taken and that are not delivered yet."""
        self.begun: _Ticket[AnyRequest] | None = None
        """The last of these, while some of its requests wait for a worker."""
        self._delivering = False

    @property
    def counts(self) -> Counts:
        """The counts of frames so far."""
        with self._shared.lock:
            return Counts(self._received, **self._ended)

    def submit(self, requests: Sequence[AnyRequest]) -> None:
        """Queue a frame for the pipeline's bell to be rung; a full queue drops its oldest frame.

        Args:
            requests: what is asked about the frame; none: it is delivered in its turn all the same.

        """
        waiting = self._waiting
        with self._shared.lock:
            self._received += 1
            if len(waiting) >= self._depth:
                waiting.popleft()
                self._ended["dropped"] += 1
            waiting.append(_Ticket(self, requests))
            self._shared.bell.queued += 1
            is_empty = not waiting[0].requests
            if is_empty:
                self._pass_empty_ones()
        if is_empty:
            self.deliver()

    def skip(self) -> None:
        """Count a received frame that is not wanted."""
        with self._shared.lock:
            self._received += 1
            self._ended["skipped"] += 1

    def close(self) -> None:
        """Take no more frames: waiting ones are dropped, those in flight are still answered."""
        with self._shared.lock:
            self._shared.streams.remove(self)
            self._ended["dropped"] += len(self._waiting)
            self._waiting.clear()
            if self.begun:
                self.begun.drop_rest()
                self.begun = None

    @property
    def ready(self) -> int:
        """The number of requests that a worker could take now. Called with the lock held."""
        ready = len(self.begun.requests) - self.begun.taken if self.begun else 0
        if self._waiting:
            # More than the limit may be in flight after a swap to a smaller batch.
            room = max(0, self._shared.limit - len(self._in_order))
            for ticket in islice(self._waiting, room):
                ready += len(ticket.requests)
        return ready

    def take(self, most: int) -> dict[AnyRequest, _Ticket[AnyRequest]]:
        """Take requests of the oldest frame that is ready. Called with the lock held.

        Args:
            most: how many, at least 1.

        """
        ticket = self.begun
        if ticket is None:
            ticket = self._waiting.popleft()
            self._in_order.append(ticket)
        requests = ticket.requests[ticket.taken : ticket.taken + most]
        ticket.taken += len(requests)
        self.begun = ticket if ticket.taken < len(ticket.requests) else None
        if self._waiting:
            self._pass_empty_ones()
        return dict.fromkeys(requests, ticket)

    def _pass_empty_ones(self) -> None:
        """Let frames without requests pass the workers. Called with the lock held."""
        while self._waiting and not self._waiting[0].requests and not self.begun:
            self._in_order.append(self._waiting.popleft())

    def deliver(self) -> None:
        """Deliver what has ended, in order, up to the first frame in flight; one thread at a time."""
        with self._shared.lock:
            if self._delivering:  # that thread goes on with what has ended meanwhile
                return
            ended = self._next_ended()
        while ended is not None:
            kind = "dropped" if ended.dropped else self._try_to_deliver(ended)
            with self._shared.lock:
                self._in_order.popleft()
                self._ended[kind] += 1
                waiting = bool(self._waiting)  # perhaps for this one to leave
                ended = self._next_ended()
            if waiting:
                self._shared.bell.wake_one()

    def _next_ended(self) -> _Ticket[AnyRequest] | None:
        """Return the first frame for this thread to deliver, if all of its requests have ended.

        Called with the lock held.
        """
        first = self._in_order[0] if self._in_order else None
        self._delivering = first is not None and len(first.outcomes) == len(first.requests)
        return first if self._delivering else None

    def _try_to_deliver(self, ended: _Ticket[AnyRequest]) -> str:
        outcomes = [ended.outcomes[request] for request in ended.requests]
        try:
            self._deliver(ended.requests, outcomes)
        except Exception:
            _log.exception("an answer could not be delivered")
            return Failed.kind
        return _kind(outcomes)


class _Worker(threading.Thread):
    """Takes frames until it is retired, then closes its slot."""

    def __init__(self, shared: _Shared, model: Model, slot: Slot, number: int) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.retired = False
        self.batch: dict[Any, _Ticket[Any]] = {}
        """The requests that it works on, and their frames."""
        self.began = 0.0
        """When it took them, seconds on the monotonic clock."""
        self.most = len(slot.inputs)
        """How many those may be."""
        self._awake = Wake(os.eventfd(0))
        self._shared = shared
        self._model = model
        self._slot = slot

    def run(self) -> None:
        shared = self._shared
        while batch := self._wait_for_work():
            for outcome in self._model.run(list(batch), self._slot):
                with shared.lock:
                    batch[outcome.request].end(outcome)
            with shared.lock:
                self.batch = {}
            for ticket in batch.values():
                ticket.stream.deliver()
        self._slot.close()

    def _wait_for_work(self) -> dict[Any, _Ticket[Any]]:
        """Return requests, taking the streams in turn; none once the worker is retired."""
        shared = self._shared
        waited = 0
        while True:
            with shared.lock:
                shared.idle -= waited
                if self.retired:
                    return {}
                if batch := self._take():
                    self.batch, self.began = batch, time.monotonic()
                    return batch
                shared.idle += 1
                shared.bell.asleep.append(self._awake)
            self._awake.wait()
            waited = 1

    def _take(self) -> dict[Any, _Ticket[Any]]:
        """Take what is ready, up to this worker's share. Called with the lock held."""
        shared, streams = self._shared, self._shared.streams
        ready = 0
        for stream in streams:
            ready += stream.ready
        # Idle workers get their share: converting one frame after another takes longer than a batch
        # saves. The regions of one frame are not divided: together they need fewer inferences.
        share = min(self.most, math.ceil(ready / (1 + shared.idle)))
        taken: dict[Any, _Ticket[Any]] = {}
        while len(taken) < share:
            stream = streams[0]
            streams.rotate(-1)
            if stream.ready:
                taken |= stream.take(self.most - len(taken))
                if stream.begun:  # one worker was woken for the whole frame
                    shared.bell.wake_one()
        return taken


class Pipeline:
    """The workers of one loaded model, shared fairly by its streams.

    Args:
        model: stays the caller's, who closes it after the pipeline.
        workers: how many frames, or batches of them, are converted and inferred at the same time.

    Raises:
        BackendError: the device has no room for that many workers.

    """

    def __init__(self, model: Model, workers: int = 4) -> None:
        self._shared = _Shared()
        self._count = workers
        self.swap(model)

    @property
    def bell(self) -> Bell:
        """To be rung after frames have been submitted."""
        return self._shared.bell

    def open_stream(self, deliver: Deliver[AnyRequest], queue_depth: int = 4) -> Stream[AnyRequest]:
        """Add a source of frames.

        Args:
            deliver: called with the outcomes of each frame, one frame at a time, in submission order.
            queue_depth: how many frames may wait; beyond that the oldest is dropped.

        """
        stream = Stream(self._shared, deliver, queue_depth)
        with self._shared.lock:
            self._shared.streams.append(stream)
        return stream

    def oldest_in_flight(self) -> float:
        """Seconds that the longest-running conversion or inference has taken so far, else 0.0."""
        with self._shared.lock:
            begun = [worker.began for worker in self._shared.workers if worker.batch]
        return time.monotonic() - min(begun) if begun else 0.0

    def swap(self, model: Model, timeout_s: float | None = None) -> bool:
        """Swap the model between two frames; none is lost.

        Args:
            model: the new one.
            timeout_s: how long the old model may take for its frames in flight, None: no limit; what
                takes longer is given up and ends as failed.

        Returns:
            True once the old model is idle and may be closed, False if it hangs.

        Raises:
            BackendError: the device has no room for the new workers; the old ones keep running.

        """
        slots: list[Slot] = []
        try:
            for _ in range(self._count):
                slots.append(model.open_slot())
        except Exception:
            for slot in slots:
                slot.close()
            raise
        workers = [_Worker(self._shared, model, slot, number) for number, slot in enumerate(slots)]
        return self._replace_workers(workers, timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish the frames in flight, drop the waiting ones and end the workers.

        Returns:
            True once the model is idle and may be closed, False if it hangs past `timeout_s`.

        """
        for stream in list(self._shared.streams):
            stream.close()
        return self._replace_workers([], timeout_s)

    def _replace_workers(self, workers: list[_Worker], timeout_s: float | None) -> bool:
        with self._shared.lock:
            retired, self._shared.workers = self._shared.workers, workers
            self._shared.limit = 2 * sum(worker.most for worker in workers)
            for worker in retired:
                worker.retired = True
        for _ in retired:
            self.bell.wake_one()
        for worker in workers:
            worker.start()
        # Measured from now, not from each frame's start: a device that recovers answers them all.
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for worker in retired:
            worker.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        hanging = [worker for worker in retired if worker.is_alive()]
        for worker in hanging:
            self._give_up(worker)
        return not hanging

    def _give_up(self, worker: _Worker) -> None:
        """End the frames of a hanging worker; a late answer is ignored."""
        with self._shared.lock:
            batch, worker.batch = worker.batch, {}
            for request, ticket in batch.items():
                error = BackendError("the backend hangs: the frame was given up")
                ticket.end(Failed(request, error))
        for ticket in batch.values():
            ticket.stream.deliver()
