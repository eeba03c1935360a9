# SPDX-License-Identifier: Apache-2.0
"""Detect a lasting change of the top class: what robots act on must not flicker."""

from __future__ import annotations


class Change:
    """Tells when a new top class has lasted for some time."""

    def __init__(self) -> None:
        self._known: str | None = None
        self._next: str | None = None
        self._since = 0.0

    def update(self, top: str | None, stamp: float, hold: float) -> bool:
        """Whether this frame confirms a new top class.

        Args:
            top: the best class, None if none was reported.
            stamp: the frame's, in seconds.
            hold: seconds for which a new top class must last.

        """
        if top == self._known:
            self._next = None
            return False
        if top != self._next or stamp < self._since:
            self._next, self._since = top, stamp
        if stamp - self._since < hold:
            return False
        self._known, self._next = top, None
        return top is not None
