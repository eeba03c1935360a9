"""Bounded queues -> parallel workers -> answers in the order the frames came.

Every worker owns one slot of the backend, so OpenCV, ONNX Runtime and the BPU work side by side with
the GIL free. When the device cannot keep up the newest frames win: the oldest waiting one is dropped
and counted, so latency stays bounded by the queue depth. Each frame submitted is answered once, as
logits or as an error, or counted as dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repghost_ros.backends.base import Backend, Slot
from repghost_ros.errors import BackendError

_log = logging.getLogger(__name__)


@dataclass
class Answer:
    """What became of one frame. Times are seconds on the monotonic clock."""

    message: Any
    """The message as it was submitted."""
    logits: np.ndarray | None = None
    """float32 (classes,), or None after an error."""
    error: Exception | None = None
    """What stopped the frame: from the conversion (`converted` is 0) or from the backend."""
    backend: Any = None
    """The model that answered, as it was given to the pipeline."""
    received: float = field(default_factory=time.monotonic)
    started: float = 0.0
    converted: float = 0.0
    inferred: float = 0.0


Convert = Callable[[Answer, np.ndarray], None]
"""Called with a frame's message and backend, and the uint8 (height * 3 // 2, width) NV12 to fill."""


class Stream:
    """One camera's way through a pipeline; made by `Pipeline.open_stream`."""

    def __init__(
        self,
        pipeline: Pipeline,
        convert: Convert,
        deliver: Callable[[Answer], None],
        queue_depth: int,
    ) -> None:
        self.received = 0
        """Frames that came: answered + refused + failed + dropped + skipped + those still inside."""
        self.answered = 0
        self.refused = 0
        """Frames whose message could not be converted."""
        self.failed = 0
        """Frames the backend failed on."""
        self.dropped = 0
        """Frames that made way for newer ones."""
        self.skipped = 0
        """Frames that the caller passed over."""
        self.convert = convert
        self._deliver = deliver
        self._depth = queue_depth
        self._pipeline = pipeline
        self._lock = pipeline.work
        self._waiting: deque[Answer] = deque()
        self._taken = 0
        self._next = 0
        self._finished: dict[int, Answer] = {}
        self._delivering = False

    def submit(self, message: Any) -> None:
        """Queue a frame; returns at once. A full queue drops its oldest frame."""
        with self._lock:
            self.received += 1
            if len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(Answer(message))
            self._lock.notify()

    def skip(self) -> None:
        """Count a frame that came and is not wanted."""
        with self._lock:
            self.received += 1
            self.skipped += 1

    def close(self) -> None:
        """Take no further frames: the waiting ones are dropped, those in work are still answered."""
        with self._lock:
            self._pipeline.streams.remove(self)
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def take(self, limit: int) -> tuple[int, Answer] | None:
        """The oldest waiting frame and its number, unless `limit` are in work. Lock held."""
        if not self._waiting or self._taken - self._next >= limit:
            return None
        self._taken += 1
        return self._taken - 1, self._waiting.popleft()

    def finish(self, number: int, answer: Answer) -> None:
        """Deliver this answer and those that waited for it, unless an earlier one is missing."""
        with self._lock:
            self._finished[number] = answer
            if self._delivering:  # that worker takes this answer along
                return
            self._delivering = True
        while True:
            with self._lock:
                ready = self._finished.pop(self._next, None)
                if ready is None:
                    self._delivering = False
                    return
            try:
                self._deliver(ready)
            except Exception:
                _log.exception("an answer could not be delivered")
            with self._lock:
                self._next += 1
                if ready.error is None:
                    self.answered += 1
                elif ready.converted:
                    self.failed += 1
                else:
                    self.refused += 1
                self._lock.notify()


class _Worker(threading.Thread):
    """Takes frames until it is retired, then closes its slot."""

    def __init__(self, pipeline: Pipeline, backend: Backend, slot: Slot, number: int) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.retired = False
        self.job: tuple[Stream, int, Answer] | None = None
        """The frame in work; whoever takes it from here (lock held) answers it."""
        self._pipeline = pipeline
        self._backend = backend
        self._slot = slot

    def run(self) -> None:
        while self._pipeline.next_job(self):
            assert self.job is not None
            stream, number, answer = self.job
            answer.backend = self._backend
            answer.started = time.monotonic()
            logits, error = None, None
            try:
                stream.convert(answer, self._slot.nv12)
                answer.converted = time.monotonic()
                logits = self._slot.infer()
            except Exception as caught:  # whatever it was, it costs this one frame only
                error = caught
            with self._pipeline.work:
                given_up = self.job is None
                self.job = None
            if not given_up:
                answer.logits, answer.error, answer.inferred = logits, error, time.monotonic()
                stream.finish(number, answer)
        self._slot.close()


class Pipeline:
    """The workers of one loaded model, shared fairly by its streams.

    Args:
        backend: the model; stays the caller's, who closes it after the pipeline.
        workers: how many frames are converted and inferred at the same time.

    Raises:
        BackendError: the device has no room for that many workers.

    """

    def __init__(self, backend: Backend, workers: int = 4) -> None:
        self.work = threading.Condition()
        self.streams: deque[Stream] = deque()
        self._count = workers
        self._crew: list[_Worker] = []
        self.swap(backend)

    def open_stream(
        self, convert: Convert, deliver: Callable[[Answer], None], queue_depth: int = 4
    ) -> Stream:
        """A further source of frames.

        Args:
            convert: called in a worker to fill the model's input; raises on a message it refuses.
            deliver: called in a worker with each answer, one at a time, in submission order.
            queue_depth: how many frames may wait; when more come the oldest is dropped.

        """
        stream = Stream(self, convert, deliver, queue_depth)
        with self.work:
            self.streams.append(stream)
        return stream

    def next_job(self, worker: _Worker) -> bool:
        """Give the worker a frame, taking the streams in turn; False once it is retired."""
        with self.work:
            while not worker.retired:
                for stream in self.streams:
                    taken = stream.take(2 * self._count)
                    if taken is not None:
                        self.streams.remove(stream)
                        self.streams.append(stream)
                        worker.job = (stream, *taken)
                        return True
                self.work.wait()
            return False

    def oldest_in_work(self) -> float:
        """Seconds that the longest inference or conversion in work has taken so far, else 0.0."""
        now = time.monotonic()
        with self.work:
            jobs = [worker.job for worker in self._crew if worker.job is not None]
        return max((now - answer.started for _, _, answer in jobs if answer.started), default=0.0)

    def swap(self, backend: Backend, timeout_s: float | None = None) -> bool:
        """Let another model take over between two frames; none is lost.

        Args:
            backend: the new model.
            timeout_s: how long the old model may take for its frames in work, None for ever; what
                hangs longer is given up and answered with a BackendError.

        Returns:
            True once the old model is idle and may be closed, False where it hangs.

        Raises:
            BackendError: the device has no room for the new workers; the old ones go on.

        """
        slots: list[Slot] = []
        try:
            for _ in range(self._count):
                slots.append(backend.open_slot())
        except Exception:
            for slot in slots:
                slot.close()
            raise
        crew = [_Worker(self, backend, slot, number) for number, slot in enumerate(slots)]
        return self._replace_crew(crew, timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish the frames in work, drop the waiting ones and end the workers.

        Returns:
            True once the model is idle and may be closed, False where it hangs past `timeout_s`.

        """
        for stream in list(self.streams):
            stream.close()
        return self._replace_crew([], timeout_s)

    def _replace_crew(self, crew: list[_Worker], timeout_s: float | None) -> bool:
        with self.work:
            retired, self._crew = self._crew, crew
            for worker in retired:
                worker.retired = True
            self.work.notify_all()
        for worker in crew:
            worker.start()
        # From now on, not from each frame's start: a device that recovers answers them all.
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for worker in retired:
            worker.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        hanging = [worker for worker in retired if worker.is_alive()]
        for worker in hanging:
            self._give_up(worker)
        return not hanging

    def _give_up(self, worker: _Worker) -> None:
        """Answer a hanging worker's frame with an error; it answers nothing when it returns."""
        with self.work:
            job, worker.job = worker.job, None
        if job is not None:
            stream, number, answer = job
            answer.converted = answer.converted or time.monotonic()
            answer.error = BackendError("the backend hangs: the frame was given up")
            stream.finish(number, answer)
