# SPDX-License-Identifier: Apache-2.0
"""Run many frames through one model: on all cores, in order, without drops, few in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

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
    slots: SimpleQueue[Slot] = SimpleQueue()
    opened = []
    broken: list[Exception] = []
    todo: deque[tuple[Request[Item], Future[Outcome[Request[Item]]]]] = deque()

    def until_broken() -> Iterator[Item]:
        try:
            yield from items
        except Exception as error:
            broken.append(error)

    def classify_some() -> None:
        """Classify the next of `todo`, as many as wait there up to a batch."""
        some: dict[Request[Item], Future[Outcome[Request[Item]]]] = {}
        while todo and len(some) < model.batch:
            with suppress(IndexError):  # another worker took it
                request, done = todo.popleft()
                some[request] = done
        if not some:
            return
        slot = slots.get()
        try:
            for outcome in model.run(list(some), slot):
                some[outcome.request].set_result(outcome)
        finally:
            slots.put(slot)

    pool = ThreadPoolExecutor(workers, "classify")
    waiting: deque[Future[Outcome[Request[Item]]]] = deque()
    try:
        for _ in range(workers):
            opened.append(model.open_slot())
            slots.put(opened[-1])
        for item in until_broken():
            waiting.append(Future())
            todo.append((Request(item, read, view, reporting), waiting[-1]))
            pool.submit(classify_some)
            while waiting and (waiting[0].done() or len(waiting) >= 2 * workers * model.batch):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if broken:
            raise broken[0]
    finally:
        pool.shutdown(cancel_futures=True)
        for slot in opened:
            slot.close()
