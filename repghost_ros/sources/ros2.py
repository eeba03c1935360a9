# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags: the folder, its metadata.yaml, and the files in it, in order."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from repghost_ros.errors import DependencyError, need
from repghost_ros.files import LFS_POINTER, LFS_REMEDY
from repghost_ros.sources import mcap, ros1, sqlite
from repghost_ros.sources.storage import COMPRESSION, ZSTD_MAGIC, Channel, Message, Storage

_log = logging.getLogger(__name__)
METADATA = "metadata.yaml"
_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_LOGS = ("-wal", "-journal")
"""Suffixes of what SQLite keeps beside an unfinished file."""
_PIECE = 1 << 20  # bytes


def read_metadata(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Return the files of a bag, and how many messages it announces by topic.

    Raises:
        FileNotFoundError: it has no metadata.yaml.
        DependencyError: PyYAML is missing.
        Exception: of any kind, where the file holds something else.

    """
    yaml = need("yaml", "pip install PyYAML")
    text = (folder / METADATA).read_text(encoding="utf-8")
    about: dict[str, Any] = yaml.safe_load(text)["rosbag2_bagfile_information"]
    announced: Counter[str] = Counter()
    for entry in about["topics_with_message_count"]:
        announced[entry["topic_metadata"]["name"]] += int(entry["message_count"])
    return [folder / Path(name).name for name in about["relative_file_paths"]], announced


def open_storage(path: Path, opened: ExitStack) -> Storage:
    """Open a bag: a folder, or a file of any kind and compression, recognized by its first bytes.

    Args:
        path: the folder or file.
        opened: closes it and removes unpacked files.

    Raises:
        ValueError: it is not a bag.
        OSError: it cannot be read or unpacked.
        Exception: it is damaged beyond use.

    """
    if path.is_dir():
        return Folder(path, opened)
    with path.open("rb") as file:
        head = file.read(len(sqlite.MAGIC))
    if head.startswith(ZSTD_MAGIC):
        return open_storage(_unpacked(path, opened), opened)
    storage: Storage
    if head.startswith(mcap.MAGIC):
        storage = mcap.McapFile(path)
    elif head == sqlite.MAGIC:
        storage = sqlite.SqliteFile(path)
    elif head.startswith(ros1.MAGIC):
        storage = ros1.Ros1File(path)
    elif not head:
        raise ValueError(f"'{path.name}' is empty")
    elif head.startswith(LFS_POINTER[: len(head)]):
        raise ValueError(LFS_REMEDY)
    else:
        raise ValueError(f"'{path.name}' begins like no bag of ROS 1, MCAP or SQLite")
    opened.callback(storage.close)
    return storage


def _unpacked(path: Path, opened: ExitStack) -> Path:
    folder = TemporaryDirectory(prefix="repghost_bag_", ignore_cleanup_errors=True)
    target = Path(opened.enter_context(folder), path.stem)
    decompressor = need("zstandard", COMPRESSION).ZstdDecompressor()
    try:
        with path.open("rb") as file, target.open("wb") as unpacked:
            # A truncated file is unpacked up to the cut, which its reader reports.
            for piece in decompressor.read_to_iter(file, read_size=_PIECE):
                unpacked.write(piece)
    except OSError as error:
        reason = (
            f"cannot be unpacked to {folder.name}: {error.strerror}; set TMPDIR to a folder with "
            "more space"
        )
        raise OSError(error.errno, reason) from error
    except need("zstandard", COMPRESSION).ZstdError as error:
        _log.warning("'%s' is unpacked up to where it is damaged: %s", path, error)
    return target


def _stem(path: Path) -> str:
    """Return the name without the suffixes of storage and compression."""
    return path.name.removesuffix(".zstd").removesuffix(".mcap").removesuffix(".db3")


def _rank(path: Path) -> int:
    """Return the position of the file's suffixes among those that are read, the preferred first."""
    return next(n for n, suffix in enumerate(_SUFFIXES) if path.name.endswith(suffix))


def _contents(storage: Storage) -> tuple[float, Counter[str]]:
    """Return the time of the first message and the number of messages by topic."""
    counts: Counter[str] = Counter()
    for channel in storage.channels:
        counts[channel.topic] += channel.messages
    return _start(storage), counts


def _start(storage: Storage) -> float:
    """Return the time of the first message in nanoseconds; infinity if there is none."""
    return next((float(time_ns) for _, time_ns, _ in storage.messages(storage.channels)), math.inf)


class Folder:
    """A Storage: all files of a bag's folder.

    Raises:
        ValueError: it holds none, or none that can be read.

    """

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self.damage: list[str] = []
        self.announced: dict[str, int] | None = None
        """Messages by topic, as metadata.yaml has them; None where it cannot be read."""
        self._files: list[tuple[Storage, dict[int, Channel]]] = []
        inside = sorted(path.iterdir())
        files = sorted((file for file in inside if file.name.endswith(_SUFFIXES)), key=_rank)
        found: dict[str, Path] = {}
        for file in files:
            found.setdefault(_stem(file), file)
        listed = self._read_metadata(path)
        if not found and not listed:
            logs = [file.name for file in inside if file.name.endswith(_LOGS)]
            reason = f": {', '.join(logs)} alone is not enough" if logs else ""
            raise ValueError(
                f"it holds neither {METADATA} nor {', '.join(_SUFFIXES[:2])} files{reason}"
            )
        # A listed file may have been compressed or decompressed since.
        listed = [found.get(_stem(file), file) for file in listed]
        unlisted = [file for file in found.values() if file not in listed]
        missing = [file for file in listed if not file.exists()]
        is_renamed = bool(missing and unlisted)
        if is_renamed:  # the announced numbers of messages tell whether all are there
            _log.warning("%s lists other files than '%s' holds: renamed?", METADATA, path)
        elif listed and unlisted:
            names = ", ".join(file.name for file in unlisted)
            self.damage.append(f"{METADATA} does not list {names}")
        is_ordered = bool(listed) and not is_renamed
        storages = {}
        for file in listed if is_ordered else sorted(found.values()):
            try:
                storages[file] = open_storage(file, opened)
            except FileNotFoundError:
                self.damage.append(f"file '{file.name}' is missing")
            except (ValueError, OSError, sqlite3.Error) as error:
                self.damage.append(f"file '{file.name}' cannot be read: {error}")
        ordered = list(storages.values())
        for storage in ordered if is_ordered else sorted(ordered, key=_start):
            self._add(storage)
        for twin in files:
            original = found[_stem(twin)]
            if twin != original and original in storages:
                self._leave_out(twin, original, storages[original])
        if not self._files:
            raise ValueError("; ".join(self.damage))

    def _leave_out(self, twin: Path, original: Path, storage: Storage) -> None:
        """Leave out a compressed or converted copy, whole or not; other messages in it are a loss."""
        start, counts = _contents(storage)
        with ExitStack() as opened:
            try:
                twin_start, twin_counts = _contents(open_storage(twin, opened))
            except (ValueError, OSError, sqlite3.Error) as error:
                _log.warning("'%s' was left out, for it cannot be read: %s", twin, error)
                return
        if twin_counts <= counts and twin_start in (start, math.inf):
            _log.warning("'%s' was left out: '%s' holds the same messages", twin, original.name)
        else:
            self.damage.append(
                f"'{twin.name}' was left out, but it holds other messages than '{original.name}'"
            )

    def _add(self, storage: Storage) -> None:
        known = sum(len(channels) for _, channels in self._files)
        ids = {
            channel.id: replace(channel, id=known + number)
            for number, channel in enumerate(storage.channels)
        }
        self._files.append((storage, ids))

    def _read_metadata(self, folder: Path) -> list[Path]:
        """Return the files it lists; none if it is missing or invalid."""
        try:
            files, announced = read_metadata(folder)
        except DependencyError:
            raise
        except FileNotFoundError:
            _log.warning("bag '%s' has no %s: its recorder was killed?", folder, METADATA)
            return []
        except Exception as error:  # it may hold anything
            reason = str(error).split("\n")[0] or type(error).__name__
            self.damage.append(f"{METADATA} cannot be read: {reason}")
            return []
        self.announced = announced
        return files

    @property
    def channels(self) -> list[Channel]:
        """All recorded channels."""
        return [channel for _, channels in self._files for channel in channels.values()]

    def messages(self, channels: Iterable[Channel]) -> Iterator[Message]:
        """Yield the messages of these channels, file by file, as far as they can be read."""
        wanted = {channel.id for channel in channels}
        for storage, ids in self._files:
            inside = [channel for channel in storage.channels if ids[channel.id].id in wanted]
            for channel, time_ns, raw in storage.messages(inside):
                yield ids[channel.id], time_ns, raw
            self.damage += [damage for damage in storage.damage if damage not in self.damage]

    def close(self) -> None:
        """Do nothing: whoever opened the files closes them."""
