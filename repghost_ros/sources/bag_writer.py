# SPDX-License-Identifier: Apache-2.0
"""Classifications into a ROS 2 bag, without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from repghost_ros.engine.results import Result
from repghost_ros.errors import SourceError, need
from repghost_ros.output import uninterrupted
from repghost_ros.sources.types import CLASSIFICATION, HYPOTHESIS, INSTALL, typestore

STORAGES = ("mcap", "sqlite3")
_NOT_IN_URIS = "#?%"
"""rosbags makes the paths of sqlite3 files into URIs as they are."""
_METADATA_VERSION = 8
"""Newer ones keep QoS in a way that Humble and Iron do not read."""


class ClassificationWriter(AbstractContextManager["ClassificationWriter"]):
    """Writes a ROS 2 bag of vision_msgs/Classification, playable from Humble on; use it in `with`.

    Args:
        path: the folder to make.
        topic: the topic they are recorded on.
        storage: one of STORAGES.

    Raises:
        SourceError: the folder exists already.
        DependencyError: rosbags is missing.

    """

    def __init__(self, path: Path, topic: str, storage: str = "mcap") -> None:
        rosbag2 = need("rosbags.rosbag2", INSTALL)
        if path.exists() or path.is_symlink():
            raise SourceError(f"'{path}' exists already: remove it, or write elsewhere")
        if storage == "sqlite3" and set(_NOT_IN_URIS) & set(str(path)):
            raise SourceError(
                f"'{path}' cannot be written with sqlite3, whose paths have none of {_NOT_IN_URIS}: "
                "write elsewhere, or mcap"
            )
        self._types = typestore()
        self._writer: Any = rosbag2.Writer(
            path,
            version=_METADATA_VERSION,
            storage_plugin=rosbag2.StoragePlugin[storage.upper()],
        )
        self._writer.open()
        self._connection = self._writer.add_connection(topic, CLASSIFICATION, typestore=self._types)

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._writer.close()

    def write(self, time_ns: int, stamp_ns: int, frame_id: str, results: Sequence[Result]) -> None:
        """Record a classification under its image's stamp and frame_id."""
        types = self._types.types
        time_type = types["builtin_interfaces/msg/Time"]
        stamp = time_type(*divmod(stamp_ns, 1_000_000_000))
        message = types[CLASSIFICATION](
            types["std_msgs/msg/Header"](stamp, frame_id),
            [types[HYPOTHESIS](each.class_id, each.score) for each in results],
        )
        raw = self._types.serialize_cdr(message, CLASSIFICATION)
        with uninterrupted():  # or the bag would announce messages that it does not hold
            self._writer.write(self._connection, time_ns, raw)
