# SPDX-License-Identifier: Apache-2.0
"""Find out how a model's outputs become scores: from its graph, else from its answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from repghost_ros.backends.base import Activation, Backend, Slot
from repghost_ros.zoo.model_file import ModelFile
from repghost_ros.zoo.onnx_graph import Ending

_log = logging.getLogger(__name__)
_OF_ENDING: dict[Ending, Activation] = {"softmax": "none", "sigmoid": "independent"}
_PROBES = 4  # of noise
_STEP = 0.02  # what int8 makes of 0 and 1 may lie a step outside


def activation_of(file: ModelFile, backend: Backend) -> Activation:
    """Return what makes scores of an opened model's outputs, see `find_activation`."""
    slot = backend.open_slot()
    try:
        return find_activation(file, slot, backend.classes)
    finally:
        slot.close()


def find_activation(file: ModelFile, slot: Slot, classes: int) -> Activation:
    """Return what makes scores of a model's outputs.

    The name of an output tells of a sigmoid that was cut off, the end of an ONNX graph of others. Of
    a compiled file, whose graph is gone, the answers to a few pictures do: numbers that always lie
    between 0 and 1 are probabilities, of one of many classes where they always sum to 1. One output
    that is not a probability is a logit of its own.

    Args:
        file: the model's.
        slot: for a few inferences.
        classes: number of outputs.

    Raises:
        BackendError: an inference failed.

    """
    if file.has_sigmoid_logits:
        return "sigmoid"
    ending = file.onnx.ending
    if ending in _OF_ENDING:
        return _OF_ENDING[ending]
    if ending == "unknown":
        answers = []
        for answer in _answers(slot):
            if not (answer.min() >= -_STEP and answer.max() <= 1 + _STEP):
                break
            answers.append(answer)
        else:
            if classes > 1 and all(abs(answer.sum() - 1) < _STEP for answer in answers):
                return "none"
            _log.info(
                "'%s' answers numbers from 0 to 1 that do not sum to 1: they are taken as independent "
                "scores; else set activation",
                file.path.name,
            )
            return "independent"
    if classes == 1:
        _log.info("'%s' has one output: its score is the sigmoid of that", file.path.name)
        return "sigmoid"
    return "softmax"


def _answers(slot: Slot) -> Iterator[np.ndarray]:
    """Yield the outputs for black, a gradient, white and noise."""
    rng = np.random.default_rng(0)
    shape = slot.nv12.shape
    for nv12 in (
        np.zeros(shape, np.uint8),
        np.broadcast_to(np.arange(shape[1]) % 256, shape),
        np.full(shape, 255, np.uint8),
        *(rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(_PROBES)),
    ):
        slot.nv12[...] = nv12
        yield slot.infer()
