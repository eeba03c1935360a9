# SPDX-License-Identifier: Apache-2.0
"""Classifications into a ROS 2 bag, without ROS."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from repghost_ros.engine.results import Result
from repghost_ros.errors import OutputError, need
from repghost_ros.output import named_errors, synchronize, uninterrupted
from repghost_ros.sources.types import CLASSIFICATION, HYPOTHESIS, INSTALL, typestore

STORAGES = ("mcap", "sqlite3")
_NOT_IN_URIS = "#?%"
"""rosbags makes the paths of sqlite3 files into URIs as they are."""
_METADATA_VERSION = 8
"""Newer ones keep QoS in a way that Humble and Iron do not read."""


class ClassificationWriter(AbstractContextManager["ClassificationWriter"]):
    """Writes a ROS 2 bag of vision_msgs/Classification, playable from Humble on; use it in `with`.

    Args:
        path: the folder, which is there from the end of the block on.
        topic: the topic they are recorded on.
        storage: one of STORAGES.

    Raises:
        OutputError: the folder exists already, or cannot be written.
        DependencyError: rosbags is missing.

    """

    def __init__(self, path: Path, topic: str, storage: str = "mcap") -> None:
        rosbag2 = need("rosbags.rosbag2", INSTALL)
        if path.exists() or path.is_symlink():
            raise OutputError(f"'{path}' exists already: remove it, or write elsewhere")
        if storage == "sqlite3" and set(_NOT_IN_URIS) & set(str(path)):
            raise OutputError(
                f"'{path}' cannot be written with sqlite3, whose paths have none of {_NOT_IN_URIS}: "
                "write elsewhere, or mcap"
            )
        self._path = path
        # The files within are called like the folder.
        self._partial = path.with_name(f".{path.name}.partial")
        self._remove()  # what a run that was killed has left
        self._types = typestore()
        self._writer: Any = rosbag2.Writer(
            self._partial / path.name,
            version=_METADATA_VERSION,
            storage_plugin=rosbag2.StoragePlugin[storage.upper()],
        )
        with _naming(path):
            try:
                self._writer.open()
                self._connection = self._writer.add_connection(
                    topic, CLASSIFICATION, typestore=self._types
                )
            except BaseException:
                self._remove()
                raise

    def __exit__(self, *_: object) -> None:
        with _naming(self._path), uninterrupted():
            try:
                self._writer.close()
                for file in self._writer.path.iterdir():
                    synchronize(file)
                self._writer.path.rename(self._path)
            finally:
                self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, time_ns: int, stamp_ns: int, frame_id: str, results: Sequence[Result]) -> None:
        """Record a classification under its image's stamp and frame_id.

        Raises:
            OutputError: it cannot be written.

        """
        types = self._types.types
        time_type = types["builtin_interfaces/msg/Time"]
        stamp = time_type(*divmod(stamp_ns, 1_000_000_000))
        message = types[CLASSIFICATION](
            types["std_msgs/msg/Header"](stamp, frame_id),
            [types[HYPOTHESIS](result.class_id, result.score) for result in results],
        )
        raw = self._types.serialize_cdr(message, CLASSIFICATION)
        # Interrupted, the bag would announce messages that it does not hold.
        with _naming(self._path), uninterrupted():
            self._writer.write(self._connection, time_ns, raw)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make the errors of both storages an OutputError with the bag's name."""
    try:
        with named_errors(path):
            yield
    except sqlite3.Error as error:
        raise OutputError(f"'{path}' cannot be written: {error}") from error
