# SPDX-License-Identifier: Apache-2.0
"""When the top class is another one: what robots decide on must not flicker."""

from __future__ import annotations


class Change:
    """Tells when the top class has been another one for a while."""

    def __init__(self) -> None:
        self._known: str | None = None
        self._next: str | None = None
        self._since = 0.0

    def update(self, top: str | None, stamp: float, hold: float) -> bool:
        """Whether this frame makes the change.

        Args:
            top: the best class, None where none was reported.
            stamp: the frame's, in seconds.
            hold: seconds for which it must have been another one than before.

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
