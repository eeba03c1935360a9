# SPDX-License-Identifier: Apache-2.0
"""Run many frames through one model: on all cores, in order, without drops, few in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from repghost_ros.backends.base import Slot
from repghost_ros.engine.model import Model, Outcome
from repghost_ros.engine.request import Request
from repghost_ros.engine.results import Reporting
from repghost_ros.engine.threads import cores
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.view import View

Item = TypeVar("Item")


def classify_each(
    model: Model,
    items: Iterable[Item],
    read: Callable[[Item], Frame],
    view: View = View(),
    reporting: Reporting = Reporting(),
    *,
    workers: int | None = None,
) -> Iterator[Outcome[Request[Item]]]:
    """Classify items as the node does, but wait where it would drop.

    Yields:
        the outcome of every item, in order.

    Args:
        model: stays the caller's.
        items: read only as far ahead as the workers need.
        read: called in a worker to turn an item into a frame; an exception refuses only that item.
        view: what of each frame the model sees.
        reporting: which classes are reported.
        workers: items, or batches of them, in flight at the same time; default: one per core, on the
            board at least four.

    Raises:
        ParameterError: the model lacks a class that `reporting` names.
        Exception: whatever `items` raised, after the outcomes of the items before it.

    """
    reporting.check(model.labels)
    workers = workers or max(cores(), 1 if model.path.suffix.lower() == ".onnx" else 4)
    broken: list[Exception] = []
    waiting: deque[Future[Outcome[Request[Item]]]] = deque()
    with ExitStack() as closing:
        slots: SimpleQueue[Slot] = SimpleQueue()
        for _ in range(workers):
            slot = model.open_slot()
            closing.callback(slot.close)
            slots.put(slot)
        batches = _Batches[Item](model, slots)
        pool = ThreadPoolExecutor(workers, "classify")
        closing.callback(pool.shutdown, cancel_futures=True)
        for item in _until_broken(items, broken):
            waiting.append(batches.add(Request(item, read, view, reporting)))
            pool.submit(batches.classify_one)
            while waiting and (waiting[0].done() or len(waiting) >= 2 * workers * model.batch):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if broken:
        raise broken[0]


def _until_broken(items: Iterable[Item], broken: list[Exception]) -> Iterator[Item]:
    """Yield items; an exception of theirs ends them and goes to `broken`."""
    try:
        yield from items
    except Exception as error:
        broken.append(error)


class _Batches(Generic[Item]):
    """Requests that wait to be classified, in batches as large as wait there.

    Args:
        model: answers.
        slots: idle ones, at least one for each thread that classifies.

    """

    def __init__(self, model: Model, slots: SimpleQueue[Slot]) -> None:
        self._model = model
        self._slots = slots
        self._waiting: deque[tuple[Request[Item], Future[Outcome[Request[Item]]]]] = deque()

    def add(self, request: Request[Item]) -> Future[Outcome[Request[Item]]]:
        """Let a request wait; returns its outcome, once that is known."""
        outcome: Future[Outcome[Request[Item]]] = Future()
        self._waiting.append((request, outcome))
        return outcome

    def classify_one(self) -> None:
        """Classify the requests that wait longest, up to a batch; any number of threads may."""
        batch: dict[Request[Item], Future[Outcome[Request[Item]]]] = {}
        with suppress(IndexError):  # no more wait
            while len(batch) < self._model.batch:
                request, future = self._waiting.popleft()
                batch[request] = future
        if not batch:
            return
        slot = self._slots.get()
        try:
            for outcome in self._model.run(list(batch), slot):
                batch[outcome.request].set_result(outcome)
        finally:
            self._slots.put(slot)
