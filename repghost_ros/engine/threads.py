# SPDX-License-Identifier: Apache-2.0
"""The number of threads that the cores of this machine allow."""

from __future__ import annotations

import os


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def threads_beside(workers: int, wanted: int = 0) -> int:
    """Threads per inference that leave the other workers their cores.

    Args:
        workers: inferences at the same time.
        wanted: upper limit; 0: as many as the cores allow.

    """
    left = max(1, cores() // workers)
    return min(wanted or left, left)
