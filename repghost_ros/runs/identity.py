# SPDX-License-Identifier: Apache-2.0
"""Keys of all that an answer depends on: resumed work takes answers only from the same key."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from repghost_ros.backends.base import DEFAULTS
from repghost_ros.engine.model import Model
from repghost_ros.version import __version__
from repghost_ros.zoo.onnx_graph import model_sha256

_SPEED = ("onnx_threads", "bpu_core", "bpu_priority", "timeout_s")
"""Options of a backend that change no answer; every other one is part of the key."""


def answers_key(model: Model, *settings: object) -> str:
    """Return a SHA-256 over everything that a model's answers to a picture depend on.

    Args:
        model: opened; its files, how it runs and all options count.
        settings: frozen values whose `repr` shows every field, such as a View and a Reporting.

    """
    options = replace(model.spec.options, **{name: getattr(DEFAULTS, name) for name in _SPEED})
    parts = (
        __version__,
        model_sha256(model.path),
        model.labels,
        model.runtime,
        model.color_range,
        model.activation,
        options,
        *settings,
    )
    return hashlib.sha256("\n".join(map(repr, parts)).encode(errors="surrogateescape")).hexdigest()
