# SPDX-License-Identifier: Apache-2.0
"""An evaluation's pictures classified by a fleet, in shards of the list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repghost_ros.runs.evaluation import Prediction, Sample, classify_samples
from repghost_ros.runs.fleet import Fleet
from repghost_ros.runs.shared_model import SharedModel
from repghost_ros.vision.nv12 import ResizePolicy

SHARD = 200
"""Pictures of a shard."""


@dataclass(frozen=True)
class Shard:
    """Some of the pictures; every worker can read them under the same paths."""

    samples: tuple[Sample, ...]
    model: SharedModel
    resize: ResizePolicy
    temperature: float


def classify_shard(shard: Shard) -> list[Prediction]:
    """In a worker: its predictions, in their order."""
    model = shard.model.open()
    return list(
        classify_samples(model, shard.samples, shard.resize, 1, temperature=shard.temperature)
    )


def classify_on(
    fleet: Fleet,
    model: SharedModel,
    samples: Sequence[Sample],
    resize: ResizePolicy,
    temperature: float = 1.0,
) -> Iterator[Prediction]:
    """A prediction for each sample, in their order, wherever they are made.

    Raises:
        FleetError: the fleet was lost, or a shard's workers were lost repeatedly.

    """
    shards = [
        Shard(tuple(samples[first : first + SHARD]), model, resize, temperature)
        for first in range(0, len(samples), SHARD)
    ]
    done: dict[int, list[Prediction]] = {}
    due = 0
    for number, value in fleet.run(classify_shard, shards):
        if isinstance(value, Exception):
            raise value
        done[number] = value
        while due in done:
            yield from done.pop(due)
            due += 1
