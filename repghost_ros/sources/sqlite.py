# SPDX-License-Identifier: Apache-2.0
"""SQLite files of ROS 2 bags, including those of a killed recorder."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from repghost_ros.sources.storage import Channel, Message, ros2_type

MAGIC = b"SQLite format 3\0"
_UNFINISHED = ("-wal", "-journal")
"""What a killed recorder leaves beside the file; its messages count."""


class SqliteFile:
    """A Storage; neither the file nor its folder is written to.

    Raises:
        sqlite3.Error: it is damaged beyond use.
        ValueError: it is not a bag's database.
        OSError: it cannot be read, or cannot be copied when that is necessary.

    """

    def __init__(self, path: Path) -> None:
        self.damage: list[str] = []
        self.channels: list[Channel] = []
        self._copy: TemporaryDirectory[str] | None = None
        unfinished = [path.with_name(path.name + end) for end in _UNFINISHED]
        unfinished = [file for file in unfinished if file.is_file() and file.stat().st_size]
        if unfinished:  # SQLite would complete them in place
            self._copy = TemporaryDirectory(prefix="repghost_bag_", ignore_cleanup_errors=True)
            try:
                for file in (path, *unfinished):
                    shutil.copyfile(file, Path(self._copy.name, file.name))
            except OSError as error:
                self._copy.cleanup()
                raise OSError(
                    error.errno,
                    f"its recorder did not end, so it must be copied to {self._copy.name}: "
                    f"{error.strerror}; set TMPDIR to a folder with more space",
                ) from error
            path = Path(self._copy.name, path.name)
        # immutable: nothing is locked or created beside it, so that it may lie in a read-only folder.
        how = "" if self._copy else "?immutable=1"
        self._database = sqlite3.connect(path.absolute().as_uri() + how, uri=True)
        try:
            self._read_channels()
        except BaseException:
            self.close()
            raise

    def _read_channels(self) -> None:
        # Otherwise SQLite refuses a truncated file.
        self._database.execute("PRAGMA writable_schema = ON")
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master")}
        if not {"topics", "messages"} <= tables:
            raise ValueError("its tables are not those of a bag")
        topics = list(
            self._database.execute("SELECT id, name, type, serialization_format FROM topics")
        )
        counts = dict.fromkeys((topic[0] for topic in topics), 0)
        try:
            counts.update(
                self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id")
            )
        except sqlite3.Error:
            for _, _, topic_id in self._rows(list(counts)):
                counts[topic_id] += 1
        for topic_id, name, kind, encoding in topics:
            self.channels.append(
                Channel(topic_id, name, ros2_type(kind), encoding, counts[topic_id])
            )

    def messages(self, channels: Iterable[Channel]) -> Iterator[Message]:
        """Yield the messages of these channels in recording order, as far as they can be read."""
        wanted = {channel.id: channel for channel in channels}
        for time_ns, row, topic_id in sorted(self._rows(list(wanted))):
            try:
                query = "SELECT data FROM messages WHERE id = ?"
                data = self._database.execute(query, (row,)).fetchone()[0]
            except (sqlite3.Error, TypeError) as error:  # None if it is no longer found
                self._damaged(f"message {row} cannot be read: {error}")
                continue
            yield wanted[topic_id], time_ns, bytes(data)

    def _rows(self, topics: list[int]) -> Iterator[tuple[int, int, int]]:
        """Time, id and topic of every message; in a damaged file, from both ends up to the damage."""
        query = (
            "SELECT timestamp, id, topic_id FROM messages NOT INDEXED "
            f"WHERE topic_id IN ({','.join('?' * len(topics))}) ORDER BY id"
        )
        last = None
        try:
            for row in self._database.execute(query, topics):
                yield row
                last = row
        except sqlite3.Error as error:
            self._damaged(f"the table of messages cannot be read to its end: {error}")
            try:
                for row in self._database.execute(f"{query} DESC", topics):
                    if last is not None and row[1] <= last[1]:
                        break
                    yield row
            except sqlite3.Error:
                pass

    def _damaged(self, damage: str) -> None:
        if damage not in self.damage:
            self.damage.append(damage)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        if self._copy is not None:
            self._copy.cleanup()
