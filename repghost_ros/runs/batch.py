"""Many frames through one model: all cores, in order, none dropped, few in memory at a time."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

from repghost_ros.backends.base import Slot
from repghost_ros.errors import BackendError, FrameError
from repghost_ros.model import Classifier
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.nv12 import to_nv12

Item = TypeVar("Item")


@dataclass(frozen=True)
class Result(Generic[Item]):
    """What became of one item."""

    item: Item
    logits: np.ndarray | None = None
    """float32 (classes,), or None after an error."""
    error: Exception | None = None
    """FrameError, OSError or BackendError."""
    inference_s: float = 0.0
    """Seconds the backend took."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def classify_each(
    classifier: Classifier,
    items: Iterable[Item],
    to_frame: Callable[[Item], Frame],
    *,
    workers: int | None = None,
    resize: str = "stretch",
    source_color_range: str = "limited",
) -> Iterator[Result[Item]]:
    """Classify items as the node does, but wait where it would drop: one result an item, in order.

    Args:
        classifier: the opened model; stays the caller's.
        items: read no further ahead than the workers need.
        to_frame: called in a worker; what it raises of FrameError and OSError becomes the result.
        workers: items in work at the same time; by default one a core, on the board at least four.
        resize: one of RESIZE_POLICIES.
        source_color_range: of YUV frames.

    Raises:
        Exception: whatever `items` raised, after the results of the items before it.

    """
    workers = workers or max(cores(), 1 if classifier.path.suffix.lower() == ".onnx" else 4)
    slots: SimpleQueue[Slot] = SimpleQueue()
    opened = []
    broken: list[Exception] = []

    def until_broken() -> Iterator[Item]:
        try:
            yield from items
        except Exception as error:
            broken.append(error)

    def classify(item: Item) -> Result[Item]:
        slot = slots.get()
        try:
            to_nv12(
                to_frame(item),
                slot.nv12,
                resize=resize,
                color_range=classifier.color_range,
                source_color_range=source_color_range,
            )
            started = time.perf_counter()
            logits = slot.infer()
            return Result(item, logits, inference_s=time.perf_counter() - started)
        except (FrameError, OSError, BackendError) as error:
            return Result(item, error=error)
        finally:
            slots.put(slot)

    pool = ThreadPoolExecutor(workers, "classify")
    waiting: deque[Future[Result[Item]]] = deque()
    try:
        for _ in range(workers):
            opened.append(classifier.open_slot())
            slots.put(opened[-1])
        for item in until_broken():
            waiting.append(pool.submit(classify, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if broken:
            raise broken[0]
    finally:
        pool.shutdown(cancel_futures=True)
        for slot in opened:
            slot.close()
