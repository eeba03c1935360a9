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
from repghost_ros.engine.job import Job
from repghost_ros.engine.model import Model
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
) -> Iterator[Job[Item]]:
    """Classify items as the node does, but wait where it would drop: one ended job per item, in order.

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
        Exception: whatever `items` raised, after the jobs of the items before it.

    """
    reporting.check(model.labels)
    workers = workers or max(cores(), 1 if model.path.suffix.lower() == ".onnx" else 4)
    slots: SimpleQueue[Slot] = SimpleQueue()
    opened = []
    broken: list[Exception] = []
    todo: deque[tuple[Job[Item], Future[Job[Item]]]] = deque()

    def until_broken() -> Iterator[Item]:
        try:
            yield from items
        except Exception as error:
            broken.append(error)

    def classify_some() -> None:
        """Classify the next of `todo`, as many as wait there up to a batch."""
        some: list[tuple[Job[Item], Future[Job[Item]]]] = []
        while todo and len(some) < model.batch:
            with suppress(IndexError):  # another worker took it
                some.append(todo.popleft())
        if not some:
            return
        slot = slots.get()
        try:
            model.run_batch([(job, read) for job, _ in some], slot)
        finally:
            slots.put(slot)
        for job, done in some:
            done.set_result(job)

    pool = ThreadPoolExecutor(workers, "classify")
    waiting: deque[Future[Job[Item]]] = deque()
    try:
        for _ in range(workers):
            opened.append(model.open_slot())
            slots.put(opened[-1])
        for item in until_broken():
            waiting.append(Future())
            todo.append((Job(item, view, reporting), waiting[-1]))
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
