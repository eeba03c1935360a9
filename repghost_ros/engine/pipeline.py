# SPDX-License-Identifier: Apache-2.0
"""Bounded queues -> parallel workers -> answers in the order the frames came.

Every worker owns one slot of the model, so OpenCV, ONNX Runtime and the BPU run in parallel, without
Python's lock. Where the model takes several frames an inference, a worker takes as many as wait, of
whichever cameras, up to its share; it never waits for more. When the device cannot keep up the newest
frames win: the oldest waiting one is dropped and counted, so latency stays bounded by the queue depth.
Every frame submitted ends in exactly one outcome.

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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic

from repghost_ros.backends.base import Failed, Slot
from repghost_ros.engine.model import AnyRequest, Model, Outcome
from repghost_ros.engine.request import Counts
from repghost_ros.errors import BackendError

_log = logging.getLogger(__name__)
Deliver = Callable[[Outcome[AnyRequest]], None]
"""Called with the outcome of a frame; where it raises, the frame has failed."""


class Wake:
    """Lets a worker sleep until it is woken, from any thread and from C.

    Args:
        descriptor: of an eventfd, or -1: there is nobody to wake.

    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def wait(self) -> None:
        """Sleep until `wake` is called; at once if it was called since the last time."""
        os.eventfd_read(self.descriptor)

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
    """

    def __init__(self) -> None:
        self._due: deque[Wake] = deque()

    def add(self, worker: Wake) -> None:
        """Let this worker be woken."""
        self._due.append(worker)

    def take(self) -> Wake:
        """Return a worker that the caller now has to wake, or NOBODY."""
        try:
            return self._due.popleft()
        except IndexError:
            return NOBODY

    def ring(self) -> None:
        """Wake the workers that frames were queued for."""
        while (worker := self.take()) is not NOBODY:
            worker.wake()


@dataclass(eq=False)
class _Ticket(Generic[AnyRequest]):
    """A frame in flight: its place in the order of its stream."""

    stream: Stream[AnyRequest]
    request: AnyRequest
    outcome: Outcome[AnyRequest] | None = None

    def end(self, outcome: Outcome[AnyRequest]) -> None:
        """Let this outcome be delivered, unless the frame was given up. Called with the lock held."""
        if self.outcome is None:
            self.outcome = outcome


@dataclass
class _Shared:
    """What pipeline, streams and workers share."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    bell: Bell = field(default_factory=Bell)
    streams: deque[Stream[Any]] = field(default_factory=deque)
    """Those that take frames, the one that was served longest ago first."""
    workers: list[_Worker] = field(default_factory=list)
    limit: int = 0
    """How many frames of one stream may be taken and not yet delivered."""
    idle: int = 0
    """Workers that wait for a frame."""
    asleep: list[Wake] = field(default_factory=list)
    """Those of them that are not being woken yet, the one that worked last, whose caches are warm, at
    the end."""

    def next_asleep(self) -> Wake:
        """Return the worker that worked last, NOBODY while none sleeps. Called without the lock."""
        # Popping is atomic, and whoever falls asleep looks for frames and says so with the lock held.
        try:
            return self.asleep.pop()
        except IndexError:
            return NOBODY


class Stream(Generic[AnyRequest]):
    """One camera's path through a pipeline; made by `Pipeline.open_stream`."""

    def __init__(self, shared: _Shared, deliver: Deliver[AnyRequest], queue_depth: int) -> None:
        self._shared = shared
        self._deliver = deliver
        self._depth = queue_depth
        self._received = 0
        self._ended: Counter[str] = Counter()
        self._waiting: deque[AnyRequest] = deque()
        self._in_order: deque[_Ticket[AnyRequest]] = deque()
        self._delivering = False

    @property
    def counts(self) -> Counts:
        """The counts of frames so far."""
        with self._shared.lock:
            return Counts(self._received, **self._ended)

    def submit(self, request: AnyRequest) -> None:
        """Queue a frame for the pipeline's bell to be rung; a full queue drops its oldest frame."""
        with self._shared.lock:
            self._received += 1
            if len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self._ended["dropped"] += 1
            self._waiting.append(request)
        worker = self._shared.next_asleep()
        if worker is not NOBODY:
            self._shared.bell.add(worker)

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

    @property
    def ready(self) -> int:
        """How many frames a worker could take now. Called with the lock held."""
        # More than the limit may be in flight after a swap to a smaller batch.
        return max(0, min(len(self._waiting), self._shared.limit - len(self._in_order)))

    def take(self) -> _Ticket[AnyRequest]:
        """Take the oldest waiting frame of those that are ready. Called with the lock held."""
        ticket = _Ticket(self, self._waiting.popleft())
        self._in_order.append(ticket)
        return ticket

    def deliver(self) -> None:
        """Deliver what has ended, in order, up to the first frame in flight; one thread at a time."""
        with self._shared.lock:
            if self._delivering:  # that thread goes on with what has ended meanwhile
                return
            self._delivering = True
            outcome = self._next_ended()
        while outcome is not None:
            kind = self._try_to_deliver(outcome)
            with self._shared.lock:
                self._in_order.popleft()
                self._ended[kind] += 1
                waiting = bool(self._waiting)  # perhaps for this place in flight
                outcome = self._next_ended()
            if waiting:
                self._shared.next_asleep().wake()

    def _next_ended(self) -> Outcome[AnyRequest] | None:
        outcome = self._in_order[0].outcome if self._in_order else None
        self._delivering = outcome is not None
        return outcome

    def _try_to_deliver(self, outcome: Outcome[AnyRequest]) -> str:
        try:
            self._deliver(outcome)
        except Exception:
            _log.exception("an answer could not be delivered")
            return Failed.kind
        return outcome.kind


class _Worker(threading.Thread):
    """Takes frames until it is retired, then closes its slot."""

    def __init__(self, shared: _Shared, model: Model, slot: Slot, number: int) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.retired = False
        self.tickets: list[_Ticket[Any]] = []
        """The frames that it works on."""
        self.began = 0.0
        """When it took them, seconds on the monotonic clock."""
        self.batch = len(slot.inputs)
        """How many those may be."""
        self._awake = Wake(os.eventfd(0))
        self._shared = shared
        self._model = model
        self._slot = slot

    def run(self) -> None:
        shared = self._shared
        while tickets := self._wait_for_work():
            ticket_of = {ticket.request: ticket for ticket in tickets}
            for outcome in self._model.run(list(ticket_of), self._slot):
                with shared.lock:
                    ticket_of[outcome.request].end(outcome)
            with shared.lock:
                self.tickets = []
            for stream in dict.fromkeys(ticket.stream for ticket in tickets):
                stream.deliver()
        self._slot.close()

    def _wait_for_work(self) -> list[_Ticket[Any]]:
        """Return frames, taking the streams in turn; none once the worker is retired."""
        shared = self._shared
        while True:
            with shared.lock:
                self.tickets = [] if self.retired else self._take()
                self.began = time.monotonic()
                if self.tickets or self.retired:
                    return self.tickets
                shared.idle += 1
                shared.asleep.append(self._awake)
            self._awake.wait()
            with shared.lock:
                shared.idle -= 1

    def _take(self) -> list[_Ticket[Any]]:
        streams = self._shared.streams
        # Idle workers get their share: converting one after another takes longer than a batch saves.
        share = math.ceil(sum(stream.ready for stream in streams) / (1 + self._shared.idle))
        taken: list[_Ticket[Any]] = []
        while len(taken) < min(share, self.batch):
            stream = next(stream for stream in streams if stream.ready)
            streams.remove(stream)
            streams.append(stream)
            taken.append(stream.take())
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
            deliver: called in a worker with each outcome, one at a time, in submission order.
            queue_depth: how many frames may wait; beyond that the oldest is dropped.

        """
        stream = Stream(self._shared, deliver, queue_depth)
        with self._shared.lock:
            self._shared.streams.append(stream)
        return stream

    def oldest_in_flight(self) -> float:
        """Seconds that the longest-running conversion or inference has taken so far, else 0.0."""
        with self._shared.lock:
            begun = [worker.began for worker in self._shared.workers if worker.tickets]
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
            self._shared.limit = 2 * sum(worker.batch for worker in workers)
            for worker in retired:
                worker.retired = True
        for _ in retired:
            self._shared.next_asleep().wake()
        self.bell.ring()  # it may hold some of them
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
            tickets, worker.tickets = worker.tickets, []
            for ticket in tickets:
                error = BackendError("the backend hangs: the frame was given up")
                ticket.end(Failed(ticket.request, error))
        for stream in dict.fromkeys(ticket.stream for ticket in tickets):
            stream.deliver()
