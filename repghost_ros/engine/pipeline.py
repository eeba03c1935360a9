# SPDX-License-Identifier: Apache-2.0
"""Bounded queues -> parallel workers -> answers in the order the frames came.

Every worker owns one slot of the model, so OpenCV, ONNX Runtime and the BPU run in parallel, without
Python's lock. Where the model takes several frames an inference, a worker takes as many as wait, of
whichever cameras, up to its share; it never waits for more. When the device cannot keep up the newest
frames win: the oldest waiting one is dropped and counted, so latency stays bounded by the queue depth.
Every frame submitted ends in exactly one outcome.

One lock, `_Shop.lock`, guards everything that more than one thread touches: the crew, the streams
and their order, each stream's queues and counts, each worker's tickets and each ticket's fields. A
job's own fields belong to whoever holds its ticket. Frames are converted, inferred and delivered
without the lock.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from repghost_ros.backends.base import Slot
from repghost_ros.engine.job import Counts, Job, Message, Outcome
from repghost_ros.engine.model import Model, Read
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import BackendError
from repghost_ros.native import Semaphore
from repghost_ros.vision.view import View

_log = logging.getLogger(__name__)
Deliver = Callable[[Job[Message]], Outcome]
"""Called with a job that has ended; returns its outcome, which may be worse than the job's own."""


@dataclass
class _Ticket:
    """A job's place in its stream's order."""

    stream: Stream[Any]
    job: Job[Any]
    ended: bool = False
    """True once the job may be delivered; whoever sets it decides what is delivered."""


@dataclass
class _Shop:
    """What pipeline, streams and workers share."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    streams: deque[Stream[Any]] = field(default_factory=deque)
    """Those that take frames, the one that was served longest ago first."""
    crew: list[_Worker] = field(default_factory=list)
    limit: int = 0
    """How many frames of one stream may be taken and not yet delivered."""
    idle: int = 0
    """Workers that wait for a frame."""
    asleep: list[_Worker] = field(default_factory=list)
    """Those of them that nobody has woken yet, the one that worked last at the end."""

    def next_awake(self) -> Semaphore | None:
        """What wakes the worker that worked last, whose caches are warm, None while none sleeps.

        Called without the lock.
        """
        # Popping is atomic, and whoever falls asleep looks for frames and says so with the lock held.
        try:
            return self.asleep.pop().awake
        except IndexError:
            return None

    def wake_one(self) -> None:
        """Wake that worker."""
        awake = self.next_awake()
        if awake is not None:
            awake.release()


class Stream(Generic[Message]):
    """One camera's path through a pipeline; made by `Pipeline.open_stream`."""

    def __init__(
        self,
        shop: _Shop,
        read: Read,
        deliver: Deliver[Message],
        queue_depth: int,
    ) -> None:
        self.read = read
        self._shop = shop
        self._deliver = deliver
        self._depth = queue_depth
        self._received = 0
        self._ended = dict.fromkeys(Outcome, 0)
        self._waiting: deque[Job[Message]] = deque()
        self._in_order: deque[_Ticket] = deque()
        self._delivering = False

    @property
    def counts(self) -> Counts:
        """The counts of frames so far."""
        with self._shop.lock:
            ended = {outcome.value: count for outcome, count in self._ended.items()}
            return Counts(self._received, **ended)

    def submit(
        self, message: Message, view: View = View(), reporting: Reporting = Reporting()
    ) -> Semaphore | None:
        """Queue a frame; returns at once. A full queue drops its oldest frame.

        Returns:
            what the caller releases to wake a worker for it, None while none sleeps.

        """
        job = Job(message, view, reporting)
        with self._shop.lock:
            self._received += 1
            if len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self._ended[Outcome.DROPPED] += 1
            self._waiting.append(job)
        return self._shop.next_awake()

    def skip(self) -> None:
        """Count a received frame that is not wanted."""
        with self._shop.lock:
            self._received += 1
            self._ended[Outcome.SKIPPED] += 1

    def close(self) -> None:
        """Take no more frames: waiting ones are dropped, those in flight are still answered."""
        with self._shop.lock:
            self._shop.streams.remove(self)
            self._ended[Outcome.DROPPED] += len(self._waiting)
            self._waiting.clear()

    @property
    def ready(self) -> int:
        """How many frames a worker could take now. Called with the lock held."""
        # More than the limit may be in flight after a swap to a smaller batch.
        return max(0, min(len(self._waiting), self._shop.limit - len(self._in_order)))

    def take(self) -> _Ticket:
        """The oldest waiting frame of those that are ready. Called with the lock held."""
        ticket = _Ticket(self, self._waiting.popleft())
        self._in_order.append(ticket)
        return ticket

    def end(self, ticket: _Ticket, job: Job[Message]) -> None:
        """Let this job be delivered, unless it was given up. Called with the lock held."""
        if not ticket.ended:
            ticket.job, ticket.ended = job, True

    def deliver(self) -> None:
        """Deliver what has ended, in order, up to the first frame in flight; one thread at a time."""
        with self._shop.lock:
            if self._delivering:  # that thread goes on with what has ended meanwhile
                return
            self._delivering = True
            job = self._next_ended()
        while job is not None:
            outcome = self._try_to_deliver(job)
            with self._shop.lock:
                self._in_order.popleft()
                self._ended[outcome] += 1
                waiting = bool(self._waiting)  # perhaps for this place in flight
                job = self._next_ended()
            if waiting:
                self._shop.wake_one()

    def _next_ended(self) -> Job[Message] | None:
        if self._in_order and self._in_order[0].ended:
            return self._in_order[0].job
        self._delivering = False
        return None

    def _try_to_deliver(self, job: Job[Message]) -> Outcome:
        try:
            return self._deliver(job)
        except Exception:
            _log.exception("an answer could not be delivered")
            return Outcome.FAILED


class _Worker(threading.Thread):
    """Takes frames until it is retired, then closes its slot."""

    def __init__(self, shop: _Shop, model: Model, slot: Slot, number: int) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.retired = False
        self.tickets: list[_Ticket] = []
        """The frames that it works on."""
        self.awake = Semaphore()
        """Released by whoever wakes it."""
        self.batch = len(slot.inputs)
        """How many those may be."""
        self._shop = shop
        self._model = model
        self._slot = slot

    def run(self) -> None:
        while tickets := self._wait_for_work():
            self._model.run_batch([(each.job, each.stream.read) for each in tickets], self._slot)
            with self._shop.lock:
                self.tickets = []
                for ticket in tickets:
                    ticket.stream.end(ticket, ticket.job)
            for stream in dict.fromkeys(ticket.stream for ticket in tickets):
                stream.deliver()
        self._slot.close()

    def _wait_for_work(self) -> list[_Ticket]:
        """Frames, taking the streams in turn; none once the worker is retired."""
        shop = self._shop
        while True:
            with shop.lock:
                self.tickets = [] if self.retired else self._take()
                if self.tickets or self.retired:
                    return self.tickets
                shop.idle += 1
                shop.asleep.append(self)
            self.awake.acquire()
            with shop.lock:
                shop.idle -= 1

    def _take(self) -> list[_Ticket]:
        streams = self._shop.streams
        # Idle workers get their share: converting one after another takes longer than a batch saves.
        share = math.ceil(sum(stream.ready for stream in streams) / (1 + self._shop.idle))
        taken: list[_Ticket] = []
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
        self._shop = _Shop()
        self._count = workers
        self.swap(model)

    def open_stream(
        self, read: Read, deliver: Deliver[Message], queue_depth: int = 4
    ) -> Stream[Message]:
        """Add a source of frames.

        Args:
            read: called in a worker to turn a message into a frame; raises if it cannot.
            deliver: called in a worker with each job, one at a time, in submission order.
            queue_depth: how many frames may wait; beyond that the oldest is dropped.

        """
        stream = Stream(self._shop, read, deliver, queue_depth)
        with self._shop.lock:
            self._shop.streams.append(stream)
        return stream

    def oldest_in_flight(self) -> float:
        """Seconds that the longest-running conversion or inference has taken so far, else 0.0."""
        with self._shop.lock:
            jobs = [ticket.job for worker in self._shop.crew for ticket in worker.tickets]
        now = time.monotonic()
        return max((now - job.started for job in jobs if job.started is not None), default=0.0)

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
        crew = [_Worker(self._shop, model, slot, number) for number, slot in enumerate(slots)]
        return self._replace_crew(crew, timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish the frames in flight, drop the waiting ones and end the workers.

        Returns:
            True once the model is idle and may be closed, False if it hangs past `timeout_s`.

        """
        for stream in list(self._shop.streams):
            stream.close()
        return self._replace_crew([], timeout_s)

    def _replace_crew(self, crew: list[_Worker], timeout_s: float | None) -> bool:
        with self._shop.lock:
            retired, self._shop.crew = self._shop.crew, crew
            self._shop.limit = 2 * sum(worker.batch for worker in crew)
            for worker in retired:
                worker.retired = True
        for _ in retired:
            self._shop.wake_one()
        for worker in crew:
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
        """End a hanging worker's frames, as failed unless refused; a late answer is ignored."""
        with self._shop.lock:
            tickets, worker.tickets = worker.tickets, []
            for ticket in tickets:
                ended = ticket.job.outcome is not None
                job = replace(ticket.job)  # a copy, because the worker may still write to it
                if not ended:
                    job.end(
                        Outcome.FAILED, BackendError("the backend hangs: the frame was given up")
                    )
                ticket.stream.end(ticket, job)
        for stream in dict.fromkeys(ticket.stream for ticket in tickets):
            stream.deliver()
