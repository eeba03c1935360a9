# SPDX-License-Identifier: Apache-2.0
"""Match a camera's images with a detector's arrays of boxes by the stamps in their headers.

Either may come first, and neither waits for others of its kind: a pair is handed out as soon as it is
complete. What stays alone is given up after a time, or when too many bytes wait, and counted.
"""

from __future__ import annotations

import math
import operator
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from repghost_ros.engine.request import combined

Image = TypeVar("Image")
Boxes = TypeVar("Boxes")
Item = TypeVar("Item")

LONGEST_S = 1.0
"""How long an image waits for its boxes, or boxes for their image, in seconds."""
MOST_BYTES = 256 << 20
"""How many bytes of images and boxes may wait."""
_REMEMBERED = 256
"""How many past stamps are remembered, to recognize what comes late or twice."""


@dataclass(frozen=True)
class MatchCounts:
    """Images and arrays of boxes so far; the others sum up to `images` and `arrays`."""

    images: int = 0
    arrays: int = 0
    matched: int = 0
    """Images whose boxes came: as many images as arrays."""
    images_without_boxes: int = 0
    boxes_without_image: int = 0
    late_boxes: int = 0
    """Arrays that came after their image had been given up."""
    doubled_images: int = 0
    """Images with the stamp of an earlier one."""
    doubled_boxes: int = 0
    unstamped_images: int = 0
    """Images with a stamp of zero, which nothing can be matched with."""
    unstamped_boxes: int = 0
    waiting_images: int = 0
    waiting_boxes: int = 0

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return combined(self, other, operator.add)


@dataclass(frozen=True)
class _Waiting(Generic[Item]):
    item: Item
    size: int
    since: float


class _Side(Generic[Item]):
    """The images, or the arrays of boxes.

    Args:
        tally: counts by the names of MatchCounts.
        total: the name that counts all of this side.
        alone: the name that counts those given up.
        doubled: the name that counts repeated stamps.
        unstamped: the name that counts stamps of zero.

    """

    def __init__(
        self, tally: Counter[str], total: str, alone: str, doubled: str, unstamped: str
    ) -> None:
        self.waiting: dict[int, _Waiting[Item]] = {}
        """By stamp in nanoseconds, in the order of arrival."""
        self.given_up: deque[int] = deque(maxlen=_REMEMBERED)
        self._matched: deque[int] = deque(maxlen=_REMEMBERED)
        self._tally = tally
        self._total, self._alone, self._doubled, self._unstamped = total, alone, doubled, unstamped

    def accept(self, stamp: int) -> bool:
        """Count an arrival; return False if it can have no counterpart of its own."""
        self._tally[self._total] += 1
        if not stamp:
            self._tally[self._unstamped] += 1
            return False
        if stamp in self.waiting or stamp in self._matched:
            self._tally[self._doubled] += 1
            return False
        return True

    def nearest(self, stamp: int, tolerance: int) -> int | None:
        """Return the waiting stamp that is nearest to this one, None if none is near enough."""
        if not tolerance:
            return stamp if stamp in self.waiting else None
        near = min(self.waiting, key=lambda other: abs(other - stamp), default=None)
        return near if near is not None and abs(near - stamp) <= tolerance else None

    def match(self, stamp: int) -> _Waiting[Item] | None:
        """Remember that this stamp was matched, and take what waited under it, if anything did."""
        self._matched.append(stamp)
        return self.waiting.pop(stamp, None)

    def give_up_oldest(self) -> int:
        """Drop and count what has waited longest; return its bytes."""
        stamp = next(iter(self.waiting))
        self.given_up.append(stamp)
        self._tally[self._alone] += 1
        return self.waiting.pop(stamp).size

    def waits_since(self) -> float:
        """Return when what has waited longest came, infinity if nothing waits."""
        return next((waiting.since for waiting in self.waiting.values()), math.inf)


class Matcher(Generic[Image, Boxes]):
    """Pairs of one camera's images and their boxes; for one thread, but for `counts`.

    Args:
        tolerance_ns: how far the two stamps of a pair may lie apart, in nanoseconds.
        longest_s: how long either waits for the other, in seconds.
        most_bytes: how many bytes may wait; beyond that the oldest are given up, images first.

    """

    def __init__(
        self, tolerance_ns: int = 0, longest_s: float = LONGEST_S, most_bytes: int = MOST_BYTES
    ) -> None:
        self.counts = MatchCounts()
        """Of all images and arrays so far; replaced as a whole, so that any thread may read it."""
        self._tolerance = tolerance_ns
        self._longest = longest_s
        self._most = most_bytes
        self._bytes = 0
        self._tally: Counter[str] = Counter()
        self._images: _Side[Image] = _Side(
            self._tally, "images", "images_without_boxes", "doubled_images", "unstamped_images"
        )
        self._boxes: _Side[Boxes] = _Side(
            self._tally, "arrays", "boxes_without_image", "doubled_boxes", "unstamped_boxes"
        )

    def add_image(
        self, stamp: int, image: Image, size: int, now: float
    ) -> tuple[Image, Boxes] | None:
        """Take an image.

        Args:
            stamp: of its header, in nanoseconds.
            image: what is handed out with the boxes.
            size: its bytes.
            now: seconds on the monotonic clock.

        Returns:
            the image and its boxes, None if these have not come.

        """
        boxes = None
        if self._images.accept(stamp):
            boxes = self._meet(stamp, self._images, self._boxes)
            if boxes is None:
                self._wait(self._images, stamp, _Waiting(image, size, now))
        self.expire(now)
        return (image, boxes.item) if boxes is not None else None

    def add_boxes(
        self, stamp: int, boxes: Boxes, size: int, now: float
    ) -> tuple[Image, Boxes] | None:
        """Take an array of boxes; see `add_image`."""
        image = None
        if self._boxes.accept(stamp):
            image = self._meet(stamp, self._boxes, self._images)
            if image is None and self._is_late(stamp):
                self._tally["late_boxes"] += 1
            elif image is None:
                self._wait(self._boxes, stamp, _Waiting(boxes, size, now))
        self.expire(now)
        return (image.item, boxes) if image is not None else None

    def expire(self, now: float) -> None:
        """Give up what has waited too long, or takes too many bytes.

        Args:
            now: seconds on the monotonic clock.

        """
        self._give_up(before=now - self._longest, most_bytes=self._most)

    def clear(self) -> None:
        """Give up everything that waits."""
        self._give_up(before=math.inf, most_bytes=-1)

    def _meet(self, stamp: int, own: _Side[Any], others: _Side[Item]) -> _Waiting[Item] | None:
        """Take the waiting counterpart of what has just come, if there is one."""
        met = others.nearest(stamp, self._tolerance)
        counterpart = others.match(met) if met is not None else None
        if counterpart is not None:
            own.match(stamp)
            self._bytes -= counterpart.size
            self._tally["matched"] += 1
        return counterpart

    def _is_late(self, stamp: int) -> bool:
        return any(abs(past - stamp) <= self._tolerance for past in self._images.given_up)

    def _wait(self, side: _Side[Item], stamp: int, waiting: _Waiting[Item]) -> None:
        side.waiting[stamp] = waiting
        self._bytes += waiting.size

    def _give_up(self, before: float, most_bytes: int) -> None:
        for side in (self._images, self._boxes):
            while side.waiting and (side.waits_since() <= before or self._bytes > most_bytes):
                self._bytes -= side.give_up_oldest()
        self.counts = MatchCounts(
            **self._tally,
            waiting_images=len(self._images.waiting),
            waiting_boxes=len(self._boxes.waiting),
        )
