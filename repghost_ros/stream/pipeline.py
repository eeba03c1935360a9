# SPDX-License-Identifier: Apache-2.0
"""Bounded queues -> parallel workers -> answers in the order the frames came.

Every worker owns one slot of the model, so OpenCV, ONNX Runtime and the BPU run in parallel, without
Python's lock. When the device cannot keep up the newest frames win: the oldest waiting one is
dropped and counted, so latency stays bounded by the queue depth. Every frame submitted ends in exactly
one outcome.

One lock, `_Shop.changed`, guards everything that more than one thread touches: the crew, the streams
and their order, each stream's queues and counts, each worker's ticket and each ticket's fields. A job's
own fields belong to whoever holds its ticket. Frames are converted, inferred and delivered without the
lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from repghost_ros.backends.base import Slot
from repghost_ros.errors import BackendError
from repghost_ros.model import Model, Read
from repghost_ros.results import Reporting
from repghost_ros.stream.job import Counts, Job, Message, Outcome
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

    changed: threading.Condition = field(default_factory=threading.Condition)
    streams: deque[Stream[Any]] = field(default_factory=deque)
    """Those that take frames, the one that was served longest ago first."""
    crew: list[_Worker] = field(default_factory=list)


class Stream(Generic[Message]):
    """One camera's path through a pipeline; made by `Pipeline.open_stream`."""

    def __init__(
        self,
        shop: _Shop,
        read: Read,
        deliver: Deliver[Message],
        queue_depth: int,
        in_flight: int,
    ) -> None:
        self.read = read
        self._shop = shop
        self._deliver = deliver
        self._depth = queue_depth
        self._limit = in_flight
        self._received = 0
        self._ended = dict.fromkeys(Outcome, 0)
        self._waiting: deque[Job[Message]] = deque()
        self._in_order: deque[_Ticket] = deque()
        self._delivering = False

    @property
    def counts(self) -> Counts:
        """The counts of frames so far."""
        with self._shop.changed:
            ended = {outcome.value: count for outcome, count in self._ended.items()}
            return Counts(self._received, **ended)

    def submit(
        self, message: Message, view: View = View(), reporting: Reporting = Reporting()
    ) -> None:
        """Queue a frame; returns at once. A full queue drops its oldest frame."""
        job = Job(message, view, reporting)
        with self._shop.changed:
            self._received += 1
            if len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self._ended[Outcome.DROPPED] += 1
            self._waiting.append(job)
            self._shop.changed.notify()

    def skip(self) -> None:
        """Count a received frame that is not wanted."""
        with self._shop.changed:
            self._received += 1
            self._ended[Outcome.SKIPPED] += 1

    def close(self) -> None:
        """Take no more frames: waiting ones are dropped, those in flight are still answered."""
        with self._shop.changed:
            self._shop.streams.remove(self)
            self._ended[Outcome.DROPPED] += len(self._waiting)
            self._waiting.clear()

    def take(self) -> _Ticket | None:
        """The oldest waiting frame, unless too many are in flight. Called with the lock held."""
        if not self._waiting or len(self._in_order) >= self._limit:
            return None
        ticket = _Ticket(self, self._waiting.popleft())
        self._in_order.append(ticket)
        return ticket

    def end(self, ticket: _Ticket, job: Job[Message]) -> None:
        """Deliver this job and those that waited for it, unless an earlier one is still in flight."""
        with self._shop.changed:
            if ticket.ended:  # already given up
                return
            ticket.job, ticket.ended = job, True
            if self._delivering:  # that worker delivers this job, too
                return
            self._delivering = True
        while (ended := self._next_ended()) is not None:
            outcome = self._try_to_deliver(ended)
            with self._shop.changed:
                self._in_order.popleft()
                self._ended[outcome] += 1
                self._shop.changed.notify()

    def _next_ended(self) -> Job[Message] | None:
        with self._shop.changed:
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
        self.ticket: _Ticket | None = None
        """The frame that it works on."""
        self._shop = shop
        self._model = model
        self._slot = slot

    def run(self) -> None:
        while (ticket := self._wait_for_work()) is not None:
            self._model.run(ticket.job, self._slot, ticket.stream.read)
            with self._shop.changed:
                self.ticket = None
            ticket.stream.end(ticket, ticket.job)
        self._slot.close()

    def _wait_for_work(self) -> _Ticket | None:
        """A frame, taking the streams in turn; None once the worker is retired."""
        streams = self._shop.streams
        with self._shop.changed:
            while not self.retired:
                for stream in streams:
                    ticket = stream.take()
                    if ticket is not None:
                        streams.remove(stream)
                        streams.append(stream)
                        self.ticket = ticket
                        return ticket
                self._shop.changed.wait()
            return None


class Pipeline:
    """The workers of one loaded model, shared fairly by its streams.

    Args:
        model: stays the caller's, who closes it after the pipeline.
        workers: how many frames are converted and inferred at the same time.

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
        stream = Stream(self._shop, read, deliver, queue_depth, 2 * self._count)
        with self._shop.changed:
            self._shop.streams.append(stream)
        return stream

    def oldest_in_flight(self) -> float:
        """Seconds that the longest-running conversion or inference has taken so far, else 0.0."""
        with self._shop.changed:
            jobs = [worker.ticket.job for worker in self._shop.crew if worker.ticket is not None]
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
        with self._shop.changed:
            retired, self._shop.crew = self._shop.crew, crew
            for worker in retired:
                worker.retired = True
            self._shop.changed.notify_all()
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
        """End a hanging worker's frame as failed; a late answer is ignored."""
        with self._shop.changed:
            ticket, worker.ticket = worker.ticket, None
        if ticket is not None:
            # A copy, because the worker may still write to the job.
            error = BackendError("the backend hangs: the frame was given up")
            given_up = replace(ticket.job, outcome=Outcome.FAILED, error=error)
            ticket.stream.end(ticket, given_up)
