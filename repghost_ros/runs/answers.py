"""Answers in files (CSV, JSON lines or a ROS 2 bag, by the name), and what differs between two."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from repghost_ros.errors import SourceError
from repghost_ros.results import Result
from repghost_ros.runs.replay import Answer
from repghost_ros.sources.bag_writer import ClassificationWriter
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.types import CLASSIFICATIONS, COMPRESSED, IMAGE, hypotheses

TOPIC = "/repghost/classification"
"""What a result bag's answers are recorded on: the node's own topic."""
_SUFFIXES = (".csv", ".jsonl")
_NO_FOLDERS = (".json", ".tsv", ".txt", ".yaml", ".bag", ".mcap", ".db3")
csv.field_size_limit(sys.maxsize)  # an error may be as long as it likes
_COLUMNS = ("index", "topic", "time_ns", "stamp_ns", "frame_id", "error")


@contextmanager
def open_results(path: Path, storage: str = "mcap") -> Iterator[Callable[[Answer], None]]:
    """A function that writes one answer; the file is complete after the `with` block.

    Until then it is called PATH.partial, which stays where the block is left by an exception. The index
    of a frame is its place on its topic, from 0. A bag has no place for errors: refused frames are not
    in it.

    Args:
        path: .csv, .jsonl, or else the folder of a bag, which must not exist yet.
        storage: one of STORAGES.

    Raises:
        SourceError: the bag exists already, or the name is that of another kind of file.
        OSError: the file cannot be written.

    """
    suffix = path.suffix.lower()
    if suffix in _NO_FOLDERS:
        raise SourceError(
            f"'{path}' would be a folder: write {' or '.join(_SUFFIXES)}, or name a folder for a bag"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    indices = count()
    partial = path.with_name(f"{path.name}.partial")
    if suffix == ".csv":
        with partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow((*_COLUMNS, "class_id", "score", "class_id 2", "score 2", "..."))
            yield lambda answer: table.writerow(
                (
                    next(indices),
                    *(getattr(answer, column) for column in _COLUMNS[1:]),
                    *(cell for each in answer.results for cell in (each.class_id, each.score)),
                )
            )
        partial.replace(path)
    elif suffix == ".jsonl":
        with partial.open("w", encoding="utf-8") as file:
            yield lambda answer: print(
                json.dumps({"index": next(indices), **_as_json(answer)}, ensure_ascii=False),
                file=file,
            )
        partial.replace(path)
    else:
        with ClassificationWriter(path, TOPIC, storage) as bag:

            def write(answer: Answer) -> None:
                if not answer.error:
                    bag.write(answer.time_ns, answer.stamp_ns, answer.frame_id, answer.results)

            yield write


def _as_json(answer: Answer) -> dict[str, Any]:
    fields = {column: getattr(answer, column) for column in _COLUMNS[1:]}
    results = [{"class_id": each.class_id, "score": each.score} for each in answer.results]
    return {**fields, "results": results}


def is_results(path: Path) -> bool:
    """Whether a path holds answers, and not images to be answered.

    Raises:
        SourceError: it is neither.

    """
    if path.suffix.lower() in _SUFFIXES:
        return True
    with Bag(path) as bag:
        return bool(bag.topics(*CLASSIFICATIONS)) and not bag.topics(IMAGE, COMPRESSED)


def read_results(path: Path, topic: str = "") -> list[Answer]:
    """The answers in a file that `open_results` wrote, or in a bag recorded from the node.

    Args:
        path: the file, or a bag.
        topic: of a bag's classifications; may be empty where there is one.

    Raises:
        SourceError: it is missing, of another kind, or damaged.

    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        return _read_bag(path, topic)
    read = _read_csv if suffix == ".csv" else _read_jsonl
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a spreadsheet adds the mark
            text = file.read()
        if text and not text.endswith("\n"):
            raise ValueError("its last line breaks off")
        return list(read(text))
    except OSError as error:
        raise SourceError(f"results '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise SourceError(f"'{path}' holds no results of repghost replay: {error}") from error


def _read_csv(text: str) -> Iterator[Answer]:
    table = csv.reader(io.StringIO(text, newline=""))  # whose cells may hold line breaks
    head = next(table, [])
    if tuple(head[: len(_COLUMNS)]) != _COLUMNS:
        raise ValueError(f"its first line is {','.join(head)[:80]!r}")
    for _, topic, time_ns, stamp_ns, frame_id, error, *cells in filter(None, table):
        results = tuple(Result(name, float(score)) for name, score in zip(cells[::2], cells[1::2]))
        yield Answer(topic, int(time_ns), int(stamp_ns), frame_id, results, error)


def _read_jsonl(text: str) -> Iterator[Answer]:
    for line in filter(None, text.split("\n")):  # splitlines() would split at U+2028 too
        fields = json.loads(line)
        del fields["index"]
        results = tuple(_result(fields) for fields in fields.pop("results"))
        yield Answer(**fields, results=results)


def _result(value: Any) -> Result:
    # A pair in files of version 0.1.
    name, score = (value["class_id"], value["score"]) if isinstance(value, dict) else value
    return Result(str(name), float(score))


def _read_bag(path: Path, topic: str) -> list[Answer]:
    with Bag(path) as bag:
        names = [each.name for each in bag.topics(*CLASSIFICATIONS)]
        if topic not in names and (topic or len(names) != 1):
            raise SourceError(
                f"bag '{path}' has classifications on {', '.join(names) or 'no topic'}, "
                f"{f'not on {topic}' if topic else 'where one is wanted'}"
            )
        return [
            Answer(
                recorded.topic,
                recorded.time_ns,
                recorded.stamp_ns,
                recorded.frame_id,
                () if recorded.message is None else hypotheses(recorded.message),
                recorded.error,
            )
            for recorded in bag.messages(topic or names[0])
        ]


@dataclass(frozen=True)
class Difference:
    """Of two results for the same frames."""

    frames: int
    """Those that both answered."""
    missing: int
    """Frames that only the first answered."""
    extra: int
    """Frames that only the second answered."""
    refused: int
    """Frames that neither answered; they are no difference."""
    same_top1: int
    max_drift: float
    """Largest change of the score of the first's best class, 0.0 to 1.0."""
    mean_drift: float
    changed: tuple[tuple[int, str, str], ...]
    """Stamp in nanoseconds, and the best class of both, where that differs."""

    @property
    def agreement(self) -> float:
        """Share of all frames that both answered alike, 0.0 to 1.0; none is no agreement."""
        every = self.frames + self.missing + self.extra
        return self.same_top1 / every if every else 0.0


def compare(these: Iterable[Answer], those: Iterable[Answer]) -> Difference:
    """Match answers by the stamp of their frame (the n-th with it where it repeats)."""
    first, second = _by_stamp(these), _by_stamp(those)
    drifts, changed = [], []
    answered, answered_now = (
        {k for k, a in each.items() if not a.error} for each in (first, second)
    )
    both = [key for key in first if key in answered and key in answered_now]
    for key in both:
        before, now = _best(first[key]), _best(second[key])
        scores = {result.class_id: result.score for result in second[key].results}
        drift = abs(before.score - scores.get(before.class_id, 0.0))
        drifts.append(drift if math.isfinite(drift) else 1.0)  # NaN would pass any tolerance
        if now.class_id != before.class_id:
            changed.append((key[0], before.class_id, now.class_id))
    return Difference(
        frames=len(both),
        missing=len(answered - answered_now),
        extra=len(answered_now - answered),
        refused=len((first.keys() | second.keys()) - answered - answered_now),
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
    """No class has the score 0.0: a threshold may have left none."""
    return answer.results[0] if answer.results else Result("", 0.0)
