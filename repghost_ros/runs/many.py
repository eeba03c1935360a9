# SPDX-License-Identifier: Apache-2.0
"""Many bags replayed by a fleet: one result per bag and a summary, identical wherever they were made.

Bags are split into parts of frames, so one large bag occupies all workers, as many small ones do.
Only this process writes: a bag's answers are ordered and written when its last part is done. A finished
bag is not replayed again while its content, the model and the options are unchanged.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from repghost_ros.engine.model import ModelSpec
from repghost_ros.errors import OutputError, RepghostError, SourceError, without_passwords
from repghost_ros.files import lock, read_text, sha256
from repghost_ros.output import whole_file
from repghost_ros.runs.answers import open_results, read_results
from repghost_ros.runs.difference import compare
from repghost_ros.runs.fleet import Fleet
from repghost_ros.runs.replay import Answer, ReplayOptions, Summary, replay
from repghost_ros.runs.shared_model import SharedModel
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.remote import is_url, listed, local_copy
from repghost_ros.sources.ros2 import METADATA

FORMATS = ("jsonl", "csv", "parquet")
PART = 500
"""Frames of a part."""
_STORAGES = (".mcap", ".db3")
_BAGS = (".bag", ".bag.active", *_STORAGES, *(f"{end}.zstd" for end in _STORAGES))
_TIME = re.compile(r"_\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d$")
"""As rosbag2 appends it to names."""
_LOCK = ".lock"


@dataclass(frozen=True)
class BagPart:
    """A range of frames of one bag."""

    bag: str
    topic: str
    first: int
    last: int | None
    """Number of the frame to end before; None: the end of the bag, and the check that all were read."""
    wanted: ReplayOptions
    model: SharedModel
    cache: Path


@dataclass(frozen=True)
class BagPlan:
    """A bag, as far as it is known before it is replayed."""

    bag: str
    identity: str
    """SHA-256 over the bag's content."""
    topic: str
    frames: int


@dataclass(frozen=True)
class Row:
    """One bag of the summary."""

    bag: str
    result: str
    """Name of the file of its answers, empty where there are none."""
    topic: str = ""
    frames: int = 0
    refused: int = 0
    failed: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    """Frames by their best class."""
    agreement: float | None = None
    """Share of frames with the same best class as in an earlier result."""
    error: str = ""


def find_bags(paths: Iterable[str]) -> list[str]:
    """Find the bags among paths: bags, folders of bags, lists of paths (.txt, one per line), URLs.

    Raises:
        SourceError: one does not exist, or holds no bags.

    """
    found: list[str] = []
    for text in paths:
        path = Path(text)
        if is_url(text):
            # Files are not requested yet, so one that storage refuses affects no other.
            found += [text] if text.endswith(_BAGS) else _bags_among(listed(text)) or [text]
        elif path.suffix == ".txt" and path.is_file():
            try:
                lines = read_text(path, "surrogateescape").splitlines()  # names may be any bytes
            except (OSError, ValueError) as error:
                raise SourceError(f"list '{path}' cannot be read: {error}") from error
            found += find_bags(line.strip() for line in lines if line.strip())
        elif path.is_dir() and not is_bag(path):
            files = sorted(str(file) for file in path.rglob("*") if file.is_file())
            inside = _bags_among(files)
            if not inside:
                raise SourceError(f"folder '{path}' holds no bags")
            found += inside
        elif path.exists():
            found.append(text)
        else:
            raise SourceError(f"bag '{path}' does not exist")
    return list(dict.fromkeys(found))


def is_bag(path: Path) -> bool:
    """Return whether a path is one bag: a file, or the folder of a ROS 2 bag."""
    if not path.is_dir():
        return path.name.endswith(_BAGS)
    return _is_bag(path.absolute().name, [file.name for file in path.iterdir()])


def _is_bag(folder: str, names: Sequence[str]) -> bool:
    """Return whether a folder of this name with these files is one ROS 2 bag.

    A killed recorder leaves no metadata.yaml, only files named after the folder: NAME_NUMBER, or in
    newer releases NUMBER_NAME_TIME.
    """
    stems = [
        name.removesuffix(".zstd").rpartition(".")[0]
        for name in names
        if name.removesuffix(".zstd").endswith(_STORAGES)
    ]
    bag = _TIME.sub("", folder)
    return METADATA in names or (
        bool(stems)
        and all(
            stem.rpartition("_")[0] == folder
            or (stem.partition("_")[0].isdecimal() and _TIME.sub("", stem.partition("_")[2]) == bag)
            for stem in stems
        )
    )


def _bags_among(files: Sequence[str]) -> list[str]:
    inside: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        inside.setdefault(folder, []).append(name)
    bags = {folder for folder in inside if _is_bag(folder.rpartition("/")[2], inside[folder])}
    single = [
        file for file in files if file.endswith(_BAGS) and file.rpartition("/")[0] not in bags
    ]
    twins = {f"{file}.zstd" for file in single}
    return sorted({*bags, *single} - twins)


def replay_many(
    bags: Sequence[str],
    out: Path,
    spec: ModelSpec,
    fleet: Fleet,
    wanted: ReplayOptions,
    *,
    format: str = "jsonl",
    compare_with: Path | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Replay every bag into OUT, and write OUT/summary.json.

    Args:
        bags: as `find_bags` names them.
        out: folder of the results; an interrupted run there is resumed.
        spec: the model.
        fleet: who does the work.
        wanted: how every bag is answered; smoothing does not apply, since bags are answered in parts.
        format: one of FORMATS.
        compare_with: OUT of an earlier run.
        cache: folder for copies of bags that are URLs, on every machine.
        progress: called with the frames done and the frames in all.

    Returns:
        one row per bag, in their order; errors are in the bag's row.

    Raises:
        OutputError: another run uses OUT, or it cannot be written.
        RepghostError: the model cannot be used, or the fleet was lost.

    """
    cache = cache or Path(tempfile.gettempdir()) / "repghost_bags"
    with spec.open() as model:
        sent = SharedModel.of(model, fleet)
    with _only_run(out):
        writer = _Writer(out, format, sent, wanted, compare_with, _names(bags, format))
        plans = _plan(bags, fleet, wanted.topic, cache, writer)
        parts = [
            BagPart(plan.bag, plan.topic, first, last, wanted, sent, cache)
            for plan in plans
            for first, last in _cut(plan.frames)
        ]
        total, done = sum(plan.frames for plan in plans), 0
        progress(0, total)
        for number, value in fleet.run(answer_part, parts):
            done += writer.add(parts[number], value)
            progress(done, total)
        rows = [writer.rows[bag] for bag in bags]
        writer.summarize(rows)
    return rows


def _cut(frames: int) -> list[tuple[int, int | None]]:
    """First and last frame of every part; the last part has no end, in case there are more."""
    firsts = list(range(0, max(1, frames), PART))
    return list(zip(firsts, [*firsts[1:], None], strict=True))


def _plan(
    bags: Sequence[str], fleet: Fleet, topic: str, cache: Path, writer: _Writer
) -> list[BagPlan]:
    """Look into every bag; finished and unreadable ones get their row at once."""
    plans = []
    looked = dict(fleet.run(inspect, [BagToInspect(bag, topic, cache) for bag in bags]))
    for number, bag in enumerate(bags):
        plan = looked[number]
        if isinstance(plan, Exception):
            writer.rows[bag] = Row(bag, "", error=_reason(plan))
        elif not writer.is_done(plan):
            plans.append(plan)
    return plans


@dataclass(frozen=True)
class BagToInspect:
    """A bag to look into."""

    bag: str
    topic: str
    cache: Path


def inspect(wanted: BagToInspect) -> BagPlan:
    """Look in a worker into a bag.

    Raises:
        SourceError: it cannot be read, or the topic is ambiguous.

    """
    path = _on_disk(wanted.bag, wanted.cache)
    with Bag(path) as bag:
        images = bag.image_topic(wanted.topic)
    return BagPlan(wanted.bag, _content(path), images.name, images.messages)


def answer_part(part: BagPart) -> tuple[list[Answer], str]:
    """Return in a worker the answers to a part, and why it ended early, empty if it did not."""
    model = part.model.open()
    answers: list[Answer] = []
    with Bag(_on_disk(part.bag, part.cache)) as bag:
        made = replay(
            bag,
            part.topic,
            model,
            part.wanted.view,
            part.wanted.reporting,
            workers=1,
            first=part.first,
            last=part.last,
        )
        try:
            answers.extend(made)
        except SourceError as error:
            return answers, str(error)
    return answers, ""


def _on_disk(bag: str, cache: Path) -> Path:
    return local_copy(bag, cache) if is_url(bag) else Path(bag)


def _content(path: Path) -> str:
    """SHA-256 of a file, or over names and content of a folder's files."""
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = "".join(f"{file.relative_to(path)}\n{sha256(file)}\n" for file in files)
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def _names(bags: Sequence[str], format: str) -> dict[str, str]:
    """Return the name of every bag's result: the bag's own, with a number where that repeats."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for bag in bags:
        stem = Path(bag.rstrip("/")).name
        if stem.endswith(_BAGS):
            stem = Path(stem.removesuffix(".zstd").removesuffix(".active")).stem
        name, number = stem, 2
        while name in taken or name == "summary":
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        names[bag] = f"{name}.{format}"
    return names


class _Writer:
    """Puts a bag's answers in order and writes them when its last part is done."""

    def __init__(
        self,
        out: Path,
        format: str,
        model: SharedModel,
        wanted: ReplayOptions,
        compare_with: Path | None,
        names: dict[str, str],
    ) -> None:
        self.rows: dict[str, Row] = {}
        self._out = out
        self._top_k = wanted.reporting.top_k
        self._compare_with = compare_with
        self._names = names
        options = repr((format, model.key, wanted))
        self._options = hashlib.sha256(options.encode(errors="surrogateescape")).hexdigest()
        self._parts: dict[str, dict[int, Any]] = {}
        self._plans: dict[str, BagPlan] = {}

    def is_done(self, plan: BagPlan) -> bool:
        """Return whether an earlier run answered this bag; if not, it will be answered now."""
        record = self._record(plan.bag)
        try:
            written = json.loads(record.read_text(encoding="utf-8"))
            row = Row(**written["row"])
        except (OSError, ValueError, KeyError, TypeError):
            row = None
        identity = [plan.identity, self._options]
        if row and written["identity"] == identity and (self._out / row.result).is_file():
            self.rows[plan.bag] = self._compared(replace(row, bag=plan.bag))
            return True
        self._plans[plan.bag] = plan
        return False

    def add(self, part: BagPart, value: Any) -> int:
        """Take a part's answers; returns the number of its frames."""
        parts = self._parts.setdefault(part.bag, {})
        parts[part.first] = value
        plan = self._plans[part.bag]
        if len(parts) == len(_cut(plan.frames)):
            self._write(plan, [parts[first] for first in sorted(parts)])
            del self._parts[part.bag]
        return 0 if isinstance(value, Exception) else len(value[0])

    def _write(self, plan: BagPlan, parts: list[Any]) -> None:
        failed = [_reason(part) for part in parts if isinstance(part, Exception)]
        if failed:  # a gap within its answers would go unnoticed: the whole bag is retried
            self.rows[plan.bag] = Row(plan.bag, "", plan.topic, plan.frames, error=failed[0])
            return
        name, summary = self._names[plan.bag], Summary()
        every = (answer for answers, _ in parts for answer in answers)
        path = self._out / name
        with open_results(path, top_k=self._top_k, bag=without_passwords(plan.bag)) as write:
            for answer in summary.count(every):
                write(answer)
        classes = dict(
            sorted(summary.classes.items(), key=lambda counted: (-counted[1], counted[0]))
        )
        broken = next((error for _, error in parts if error), "")
        row = Row(
            *(plan.bag, name, plan.topic, summary.frames, summary.refused, summary.failed, classes),
            error=broken,
        )
        self.rows[plan.bag] = self._compared(row)
        if not (broken or summary.failed):  # the next run tries again
            entry = {"identity": [plan.identity, self._options], "row": asdict(row)}
            _write_json(self._record(plan.bag), entry)

    def _compared(self, row: Row) -> Row:
        if self._compare_with is None:
            return row
        try:
            before = read_results(self._compare_with / row.result)
            difference = compare(before, read_results(self._out / row.result))
        except SourceError as error:
            return replace(row, error=row.error or f"cannot be compared: {error}")
        return replace(row, agreement=difference.agreement)

    def _record(self, bag: str) -> Path:
        return self._out / ".done" / f"{self._names[bag]}.json"

    def summarize(self, rows: list[Row]) -> None:
        """Write summary.json."""
        _write_json(self._out / "summary.json", [asdict(row) for row in rows])


def _write_json(path: Path, value: Any) -> None:
    with whole_file(path) as partial:
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        partial.write_text(without_passwords(text), encoding="utf-8", errors="surrogateescape")


def _reason(error: Exception) -> str:
    expected = isinstance(error, (RepghostError, OSError))
    return str(error) if expected and str(error) else f"{type(error).__name__}: {error}"


@contextmanager
def _only_run(out: Path) -> Iterator[None]:
    """Keep a second run from writing to the same folder.

    Raises:
        OutputError: another one is running, or the folder cannot be made.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / _LOCK).open("w") as file:
            try:
                lock(file, wait=False)
            except OSError as error:
                raise OutputError(
                    f"another run writes to '{out}': wait for it, or write elsewhere"
                ) from error
            yield
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OutputError(f"'{out}' cannot be the folder of results: {error.strerror}") from error
