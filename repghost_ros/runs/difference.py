# SPDX-License-Identifier: Apache-2.0
"""The difference between two replays of the same frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from repghost_ros.backends.base import Failed
from repghost_ros.engine.results import Result
from repghost_ros.runs.replay import Answer


@dataclass(frozen=True)
class Change:
    """A frame whose best class differs."""

    moment_ns: int
    before: str
    now: str


@dataclass(frozen=True)
class Difference:
    """The difference between two results for the same frames."""

    frames: int
    """Those that both answered."""
    missing: int
    """Frames that only the first answered."""
    extra: int
    """Frames that only the second answered."""
    refused: int
    """Frames that both refused; they do not count as a difference."""
    failed: int
    """Frames on which a backend failed, in the first or the second."""
    same_top1: int
    max_drift: float
    """Largest change of the score of the first's best class, 0.0 to 1.0."""
    mean_drift: float
    changed: tuple[Change, ...]
    """Of frames that both answered."""

    @property
    def agreement(self) -> float:
        """Share of all frames on which both agree, 0.0 to 1.0; 0.0 if there are no frames."""
        every = self.frames + self.missing + self.extra
        return self.same_top1 / every if every else 0.0


def compare(these: Iterable[Answer], those: Iterable[Answer]) -> Difference:
    """Match answers by the stamp of their frame (the n-th one where a stamp repeats)."""
    first, second = _by_stamp(these), _by_stamp(those)
    drifts, changed = [], []
    answered, answered_now = (
        {key for key, answer in answers.items() if not answer.error} for answers in (first, second)
    )
    failed = {
        key
        for answers in (first, second)
        for key, answer in answers.items()
        if answer.outcome == Failed.kind
    }
    both = [key for key in first if key in answered and key in answered_now]
    for key in both:
        before, now = _best(first[key]), _best(second[key])
        scores = {result.class_id: result.score for result in second[key].results}
        drift = abs(before.score - scores.get(before.class_id, 0.0))
        drifts.append(drift if math.isfinite(drift) else 1.0)  # NaN would pass any tolerance
        if now.class_id != before.class_id:
            changed.append(Change(second[key].moment_ns, before.class_id, now.class_id))
    return Difference(
        frames=len(both),
        missing=len(answered - answered_now),
        extra=len(answered_now - answered),
        refused=len((first.keys() | second.keys()) - answered - answered_now - failed),
        failed=len(failed),
        same_top1=len(both) - len(changed),
        max_drift=max(drifts, default=0.0),
        mean_drift=sum(drifts) / len(drifts) if drifts else 0.0,
        changed=tuple(changed),
    )


def _by_stamp(answers: Iterable[Answer]) -> dict[tuple[int, int], Answer]:
    seen: Counter[int] = Counter()
    keyed = {}
    for answer in answers:
        keyed[answer.stamp_ns, seen[answer.stamp_ns]] = answer
        seen[answer.stamp_ns] += 1
    return keyed


def _best(answer: Answer) -> Result:
    """Return the best class; a frame without one, such as below a threshold, scores 0.0."""
    return answer.results[0] if answer.results else Result("", 0.0)
