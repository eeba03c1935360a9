# SPDX-License-Identifier: Apache-2.0
"""A model ready to classify: file found or downloaded, labels read, backend opened."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from repghost_ros.backends.base import (
    DEFAULTS,
    Activation,
    Backend,
    BackendOptions,
    Failed,
    Inferred,
    Refused,
    Runtime,
    Slot,
    Times,
)
from repghost_ros.backends.registry import choose
from repghost_ros.engine.activation import find_activation
from repghost_ros.engine.request import Request
from repghost_ros.engine.results import Reporting, Result
from repghost_ros.errors import BackendError, FrameError, LabelsError, ParameterError
from repghost_ros.vision.boxes import Box, BoxChoice
from repghost_ros.vision.frame import Frame, from_array
from repghost_ros.vision.nv12 import ColorRange, ResizePolicy
from repghost_ros.vision.view import USUAL, Fit, View
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.download import Progress
from repghost_ros.zoo.labels import labels_for, read_labels
from repghost_ros.zoo.model_file import choose_color_range, read_model_file
from repghost_ros.zoo.own import Own
from repghost_ros.zoo.store import locate, resolve

AnyRequest = TypeVar("AnyRequest", bound=Request[Any])


@dataclass(frozen=True)
class Answered(Generic[AnyRequest]):
    """A frame with its results."""

    kind: ClassVar[str] = "answered"
    request: AnyRequest
    model: Model
    """The one that answered."""
    best: Iterable[tuple[int, float]]
    """Index and probability of the reported classes, best first."""
    logits: np.ndarray
    """float32 (classes,), as the model gave them."""
    times: Times
    seen: Frame | None
    """What of the message the model saw; None where nobody has read it in Python."""

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """Best first; may be empty where no class reaches the threshold."""
        return self.request.reporting.named(self.best, self.model.labels)

    @cached_property
    def frame(self) -> Frame:
        """The part of the message that the model saw, before it was scaled."""
        request = self.request
        return self.seen or request.view.crop(request.read(request.message))

    @property
    def note(self) -> str:
        """The loss of data despite which the frame was taken; see Frame."""
        return self.seen.note if self.seen is not None else ""


Outcome = Answered[AnyRequest] | Refused[AnyRequest] | Failed[AnyRequest]
"""How a request ended; `kind` names the field of Counts that counts it."""


@dataclass(frozen=True)
class Region:
    """A detector's box, and what the model says of it."""

    box: Box
    outcome: Answered[Request[Frame]] | Refused[Request[Frame]] | None = None
    """None for a box that was not chosen."""

    @property
    def results(self) -> tuple[Result, ...]:
        """Best first; empty for a box that was not chosen or shows nothing."""
        return self.outcome.results if isinstance(self.outcome, Answered) else ()

    @property
    def error(self) -> str:
        """Why the box shows nothing; empty if it was answered or not chosen."""
        return str(self.outcome.error) if isinstance(self.outcome, Refused) else ""


@dataclass(frozen=True, repr=False)
class Model(AbstractContextManager["Model"]):
    """A backend and its class names; close it, or use it in a `with` statement.

    Any number of threads may call `run_one`; each needs device buffers, which later calls reuse.
    """

    name: str
    """Such as `150`, `demo` or a file's name."""
    path: Path
    labels: tuple[str, ...]
    color_range: ColorRange
    """BT.601 range of the NV12 it wants."""
    backend: Backend
    activation: Activation = "softmax"
    """How its outputs become scores, see BackendOptions; never `auto`."""
    spec: ModelSpec = field(default_factory=lambda: ModelSpec())
    """What it was opened by, with the options that it runs with."""
    own: Own = field(default_factory=Own)
    """What its file records of its classes."""
    fit: Fit = USUAL
    """How pictures are fitted to the input, as the file and the record of the catalogue say."""
    _idle: list[Slot] = field(default_factory=list, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )
    """Guards `_idle`."""
    _closed: threading.Event = field(
        default_factory=threading.Event, init=False, repr=False, compare=False
    )

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def runtime(self) -> str:
        """The runtime's name for people."""
        return self.backend.runtime

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self.backend.width

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self.backend.height

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.backend.classes

    @property
    def batch(self) -> int:
        """The number of frames that one inference can take."""
        return self.backend.batch

    @property
    def resize(self) -> ResizePolicy:
        """The resize policy where a view does not give one."""
        return self.fit.resize

    def fitting(self, view: View) -> str:
        """Return how pictures are fitted to the input: the resize policy and, of `auto`, its origin."""
        if view.resize != "auto":
            return view.resize
        return f"{self.resize} ({'from the model file' if self.own.resize else 'default'})"

    def about(self, view: View) -> str:
        """Return in one line what answers: the file, its runtime, how pictures are fitted to it."""
        return f"{self.path.name} on {self.runtime}, resize: {self.fitting(view)}"

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}"
        return (
            f"<{type(self).__name__} {self.name}: {self.classes} classes, {size}, {self.runtime}>"
        )

    def run_one(self, request: AnyRequest) -> Outcome[AnyRequest]:
        """Take one request from message to results, in a slot that later calls reuse.

        Raises:
            BackendError: the model is closed, or the device has no room for another slot.

        """
        with self._idle_slot() as slot:
            (outcome,) = self.run([request], slot)
        return outcome

    def classify_regions(
        self,
        picture: Frame | np.ndarray,
        boxes: Sequence[Box],
        view: View = View(),
        reporting: Reporting = Reporting(),
        choice: BoxChoice = BoxChoice(),
    ) -> tuple[Region, ...]:
        """Classify boxes of a picture, in as few inferences as the batch allows.

        Args:
            picture: a frame, or a uint8 BGR (height, width, 3) or gray (height, width) array.
            boxes: in pixels of the picture.
            view: how each box is fitted to the model; without a region.
            reporting: which classes are reported.
            choice: which boxes are classified, and how much around them.

        Returns:
            a region for each box, in their order.

        Raises:
            FrameError: the picture cannot be read.
            BackendError: the device failed.
            ParameterError: the view has a region, or the model lacks a class that `reporting` names.

        """
        if any(view.roi):
            raise ParameterError(
                "roi is for whole pictures: leave it out where boxes are classified"
            )
        frame = (picture if isinstance(picture, Frame) else from_array(picture)).decoded()
        regions = {number: Region(box) for number, box in enumerate(boxes)}
        numbers: dict[Request[Frame], int] = {}
        for number, roi in choice.rois(boxes, frame.width, frame.height).items():
            if isinstance(roi, FrameError):
                request = Request(frame, _itself, view, reporting)
                regions[number] = Region(boxes[number], Refused(request, roi))
            else:
                request = Request(frame, _itself, replace(view, roi=roi), reporting)
                numbers[request] = number
        requests = list(numbers)
        with self._idle_slot() as slot:
            for start in range(0, len(requests), self.batch):
                for outcome in list(self.run(requests[start : start + self.batch], slot)):
                    if isinstance(outcome, Failed):
                        raise outcome.error
                    number = numbers[outcome.request]
                    regions[number] = Region(boxes[number], outcome)
        return tuple(regions.values())

    @contextmanager
    def _idle_slot(self) -> Iterator[Slot]:
        """Yield a slot that no other call uses."""
        with self._lock:
            slot = self._idle.pop() if self._idle else None
        slot = slot or self.open_slot()
        try:
            yield slot
        finally:
            with self._lock:
                self._idle.append(slot)

    def run(self, batch: Sequence[AnyRequest], slot: Slot) -> Iterator[Outcome[AnyRequest]]:
        """Take requests from message to results in one inference: read, convert, infer, rank.

        Args:
            batch: no more than the slot's inputs.
            slot: the caller's.

        Returns:
            what becomes of each request, as soon as that is known; an error is that of its outcome.

        """
        ranks = self.activation == "softmax"
        return map(self._outcome, slot.run(batch, self.color_range, rank=ranks, fit=self.fit))

    def _outcome(
        self, done: Inferred[AnyRequest] | Refused[AnyRequest] | Failed[AnyRequest]
    ) -> Outcome[AnyRequest]:
        """Rank the classes of an inferred frame."""
        if not isinstance(done, Inferred):
            return done
        best = done.best
        if best is None:
            try:
                best = done.request.reporting.best(done.logits, self.labels, self.activation)
            except Exception as error:
                return Failed(done.request, error)
        best = done.request.reporting.judged(best, self.own)
        return Answered(done.request, self, best, done.logits, done.times, done.seen)

    def open_slot(self) -> Slot:
        """Allocate the buffers of one worker; its owner closes it before the model.

        Raises:
            BackendError: the model is closed, or the device has no room for another slot.

        """
        self.check_open()
        return self.backend.open_slot()

    def check_open(self) -> None:
        """Check that the model is not closed.

        Raises:
            BackendError: it is.

        """
        if self._closed.is_set():
            raise BackendError(f"the model '{self.name}' is closed: open it again with open_model")

    def close(self) -> None:
        """Unload the model; further calls do nothing."""
        self._closed.set()
        with self._lock:
            while self._idle:
                self._idle.pop().close()
        self.backend.close()


@dataclass(frozen=True)
class ModelSpec:
    """The model to open, and the options for running it.

    Args:
        model: a size (`100` to `200`) or `demo`; ignored where `model_path` is given.
        model_path: a model file of your own, or empty.
        labels_path: its labels, one per line; empty: those in the model file, or else ImageNet's.
        backend: one of backends.registry.BACKENDS.
        options: how to run it.

    """

    model: str = "demo"
    model_path: str = ""
    labels_path: str = ""
    backend: str = "auto"
    options: BackendOptions = DEFAULTS

    def check(self) -> Runtime:
        """Return the runtime that will run the model, as far as known without opening it.

        Raises:
            BackendError: no usable runtime, or `model_path` is not a model file.
            StoreError: `model_path` does not exist.
            LabelsError: `labels_path` does not exist.

        """
        runtime = self._runtime()
        if self.model_path:
            resolve(self.model, runtime.format, model_path=self.model_path)
        return runtime

    def _runtime(self) -> Runtime:
        if self.labels_path and not Path(self.labels_path).is_file():
            raise LabelsError(f"labels file '{self.labels_path}' cannot be read: it does not exist")
        path = Path(self.model_path).expanduser() if self.model_path else None
        runtime = choose(self.backend, self.options.bpu_runtime, path=path)
        if runtime.backend == "bpu" and (
            self.options.mean or self.options.scale or self.options.channel_order != "auto"
        ):
            raise BackendError(
                "mean, scale and channel_order are for ONNX models: one for the BPU was compiled with "
                "its own"
            )
        return runtime

    def open(self, progress: Progress | None = None) -> Model:
        """Find (or download) the model, open it, and match it with its labels.

        Raises:
            BackendError: no usable runtime, the model is corrupt or not a classifier, or made
                for another color range.
            StoreError: the model is neither here nor available.
            LabelsError: the labels cannot be read or do not fit the model.

        """
        # Chosen before a download, which would be useless if nothing can run the model.
        runtime = self._runtime()
        path = locate(self.model, runtime.format, model_path=self.model_path, progress=progress)
        file = read_model_file(path)
        color_range = choose_color_range(path, file.color_range, self.options.color_range)
        options = replace(self.options, color_range=color_range)
        if not self.model_path and self.model in MODELS:
            options = replace(options, preprocessing=MODELS[self.model].preprocessing)
        backend = runtime.open(file, options)
        try:
            labels = self._labels(backend, file.own)
            # The first inference is always the slowest: do it before the first frame.
            slot = backend.open_slot()
            try:
                if backend.batch > 1:
                    slot.infer_batch(backend.batch)
                slot.infer()
                activation = self.options.activation
                if activation == "auto":
                    recorded = file.own.activation
                    activation = recorded or find_activation(file, slot, backend.classes)
            finally:
                slot.close()
        except BaseException:
            backend.close()
            raise
        name = path.name if self.model_path else self.model
        return Model(
            *(name, path, labels, color_range, backend, activation, replace(self, options=options)),
            own=replace(file.own, labels=labels),
            fit=file.own.fit(options.preprocessing),
        )

    def _labels(self, backend: Backend, own: Own) -> tuple[str, ...]:
        if self.labels_path:
            return read_labels(Path(self.labels_path), backend.classes)
        name = "" if self.model_path else self.model
        if own.labels and len(own.labels) != backend.classes:
            raise LabelsError(
                f"the model's file records {len(own.labels)} labels for {backend.classes} classes: "
                "name its labels file in labels_path"
            )
        return own.labels or backend.labels or labels_for(name, backend.classes)


def _itself(frame: Frame) -> Frame:
    """Return a frame that was read before."""
    return frame
