# SPDX-License-Identifier: Apache-2.0
"""Exponential back-off: the delays between one attempt and the next."""

from __future__ import annotations


class Backoff:
    """Delays that double from attempt to attempt.

    Args:
        first: the first delay, in seconds.
        longest: the longest delay, in seconds.

    """

    def __init__(self, first: float, longest: float) -> None:
        self.longest = longest
        self._first = self._next = first

    def delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        delay, self._next = self._next, min(2 * self._next, self.longest)
        return delay

    def reset(self) -> None:
        """Begin with the first delay again."""
        self._next = self._first
