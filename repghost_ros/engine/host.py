# SPDX-License-Identifier: Apache-2.0
"""Keeps one model running: opens it, swaps it for another, reopens it when it fails or hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from repghost_ros.engine.backoff import Backoff
from repghost_ros.engine.model import Model, ModelSpec
from repghost_ros.engine.pipeline import Pipeline
from repghost_ros.engine.request import Counts
from repghost_ros.errors import BackendError
from repghost_ros.zoo.download import Progress

_REOPEN_AFTER = (0.5, 30.0)  # seconds until a failed backend is reopened: first and longest


class Log(Protocol):
    """The logger methods used here; rclpy's and the standard library's loggers have both."""

    def debug(self, message: str, /) -> object:
        """Log what only a developer wants to know."""

    def info(self, message: str, /) -> object:
        """Log a message."""

    def error(self, message: str, /) -> object:
        """Log an error."""


class ModelHost:
    """The model that a node answers with, and its pipeline while the node is active.

    Models are opened on separate threads, one at a time, because a download takes minutes. `model`,
    `pipeline` and `fault` may be read from any thread; `_lock` guards their changes.

    Args:
        log: receives opened models and failures.
        progress: called during downloads; an exception from it cancels the download.
        check: called with each opened model before it becomes the active one; an exception from it
            refuses the model.

    """

    def __init__(
        self,
        log: Log,
        progress: Progress | None = None,
        check: Callable[[Model], None] = lambda model: None,
    ) -> None:
        self.model: Model | None = None
        self.pipeline: Pipeline | None = None
        self.fault = ""
        """Why there is no model that works, or empty."""
        self._log = log
        self._progress = progress
        self._check = check
        self._lock = threading.RLock()
        self._one_at_a_time = threading.Lock()
        self._generation = 0  # incremented by `close`, so that a load that ends later is stale
        self._opening: Future[Model] | None = None
        self._downloaded: tuple[int, int] | None = None
        """Bytes so far and in all (0: unknown) of the model that is being downloaded."""
        self._seen = Counts()
        self._backoff = Backoff(*_REOPEN_AFTER)
        self._reopen_at = 0.0

    def open(self, spec: ModelSpec, longest_s: float | None = None) -> Future[Model]:
        """Open a model on a separate thread and make it the active one.

        If another model is active, both are loaded for a moment, and the new one takes over between
        two frames. If the new one fails to open, the old one stays active.

        Args:
            spec: which model, and how to run it.
            longest_s: seconds after which the old model's frames in flight are given up; None: never.

        Returns:
            the model, or the error that kept it from being opened: RepghostError or OSError.

        """
        opening: Future[Model] = Future()
        with self._lock:
            generation, self._opening = self._generation, opening

        def work() -> None:
            with self._one_at_a_time:
                try:
                    model = self._open(spec, longest_s, generation)
                except BaseException as error:
                    opening.set_exception(error)
                else:
                    opening.set_result(model)
                self._downloaded = None

        # A daemon, so that the process can exit during a stalled download.
        threading.Thread(target=work, name="model", daemon=True).start()
        return opening

    def start(self, workers: int) -> Pipeline:
        """Start a pipeline with the opened model.

        Raises:
            BackendError: there is no model, or the device has no room for that many workers.

        """
        with self._lock:
            if self.model is None:
                raise BackendError("no model is open")
            self.pipeline = Pipeline(self.model, workers)
            self.fault = ""
            self._seen = Counts()
            return self.pipeline

    def stop(self, timeout_s: float) -> bool:
        """Answer the frames in flight and end the pipeline.

        Args:
            timeout_s: how long to wait for them.

        Returns:
            False if the model hangs: it is abandoned and must be opened again.

        """
        with self._lock:
            pipeline, self.pipeline = self.pipeline, None
            self.fault = ""
            if pipeline is None or pipeline.close(timeout_s):
                return True
            self._log.error("the backend hangs: leaving it behind")
            self.model = None  # a model that is still running must not be unloaded
            return False

    def set_fault(self, fault: str) -> None:
        """Record why there is no model that works; empty: there is one."""
        with self._lock:
            self.fault = fault

    def close(self) -> None:
        """Unload the model; one that is still being opened is closed once it is open."""
        with self._lock:
            self._generation += 1
            model, self.model = self.model, None
        if model is not None:
            model.close()

    @property
    def opening(self) -> bool:
        """True while a model is being opened."""
        return self._opening is not None and not self._opening.done()

    @property
    def activity(self) -> str:
        """The progress of a model that is being opened, such as `downloading 34 %`; or empty."""
        if not self.opening:
            return ""
        done, total = self._downloaded or (0, 0)
        if not done or done == total:
            return "loading"
        return (
            f"downloading {done * 100 // total} %" if total else f"downloading {done / 1e6:.1f} MB"
        )

    def hangs(self, longest_s: float) -> bool:
        """Return whether a frame in flight has taken longer than this."""
        pipeline = self.pipeline
        return pipeline is not None and pipeline.oldest_in_flight() > longest_s

    def watch(self, counts: Counts, spec: ModelSpec, longest_s: float) -> None:
        """Reopen the model when it fails or hangs; retried with exponential back-off.

        Args:
            counts: of all frames since the pipeline was started.
            spec: of the model.
            longest_s: after which a frame in flight hangs.

        """
        if self.pipeline is None or self.opening:
            return
        hangs = self.hangs(longest_s)
        since, self._seen = counts - self._seen, counts
        now = time.monotonic()
        if not (since.failed or hangs):
            if since.answered:
                self.set_fault("")
            if now - self._reopen_at > self._backoff.longest:
                self._backoff.reset()
            return
        if now < self._reopen_at:
            return
        self._reopen_at = now + self._backoff.delay()
        self._log.error(f"the backend {'hangs' if hangs else 'failed'}: reopening the model")
        self.open(spec, longest_s).add_done_callback(self._note_failed_reopening)

    def _note_failed_reopening(self, opened: Future[Model]) -> None:
        error = opened.exception()
        if error is not None:
            fault = f"the model cannot be reopened yet: {error}"
            self.set_fault(fault)
            self._log.error(fault)

    def _note_progress(self, done: int, total: int) -> None:
        self._downloaded = done, total
        if self._progress is not None:
            self._progress(done, total)

    def _open(self, spec: ModelSpec, longest_s: float | None, generation: int) -> Model:
        self._log.debug(f"opening {spec}")
        model = spec.open(self._note_progress)
        try:
            self._check(model)
        except Exception:
            model.close()
            raise
        self._log.info(
            f"model '{model.name}' ({model.classes} classes, {model.width}x{model.height}) from "
            f"{model.path} on {model.runtime}"
        )
        with self._lock:
            if generation != self._generation:
                model.close()
                raise BackendError("the model was closed before it was open")
            old, idle = self.model, True
            if self.pipeline is not None:
                try:
                    idle = self.pipeline.swap(model, longest_s)
                except Exception:
                    model.close()
                    raise
            self.model = model
            self.fault = ""
        if old is not None and idle:
            old.close()
        return model
