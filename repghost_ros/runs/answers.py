# SPDX-License-Identifier: Apache-2.0
"""Answers in files: CSV, JSON lines, Parquet or a ROS 2 bag, by file name."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from repghost_ros.backends.base import Refused
from repghost_ros.engine.model import Answered
from repghost_ros.engine.results import Result
from repghost_ros.errors import OutputError, SourceError, need
from repghost_ros.files import read_text
from repghost_ros.output import whole_file
from repghost_ros.runs.regions import BOX_FIELDS
from repghost_ros.runs.replay import Answer
from repghost_ros.sources.bag_writer import ClassificationWriter
from repghost_ros.sources.bags import Bag
from repghost_ros.sources.types import CLASSIFICATIONS, COMPRESSED, IMAGE, hypotheses

TOPIC = "/repghost/classification"
"""Topic of a result bag's answers: the node's own."""
PYARROW = "pip install pyarrow"
_ROW_GROUP = 50_000  # rows kept in memory
_SUFFIXES = (".csv", ".jsonl", ".parquet")
_NO_FOLDERS = (".json", ".tsv", ".txt", ".yaml", ".bag", ".mcap", ".db3")
csv.field_size_limit(sys.maxsize)  # errors may be of any length
_COLUMNS = ("index", "topic", "time_ns", "stamp_ns", "frame_id", "error", "outcome")
_FIELDS = _COLUMNS[1:]
"""Of an answer."""


@contextmanager
def open_results(
    path: Path, storage: str = "mcap", *, top_k: int = 5, bag: str = "", boxes: bool = False
) -> Iterator[Callable[[Answer], None]]:
    """Yield a function that writes one answer; the file is complete after the `with` block.

    Until then it is called NAME.partial.SUFFIX, which is kept, unless empty, if the block is left by
    an exception. The index of a frame is its position on its topic, from 0. A bag cannot hold errors:
    frames that were refused or failed are not in it.

    Args:
        path: .csv, .jsonl, .parquet, or the folder of a bag, which must not exist yet.
        storage: one of STORAGES.
        top_k: most classes per answer, and the number of class columns of a CSV.
        bag: the bag's name, for the column `bag` in Parquet.
        boxes: the answers are each a BoxAnswer; the index is the row's position. Not for a bag.

    Raises:
        OutputError: the bag exists already, or the name has another kind of file's suffix, or the file
            cannot be written.
        DependencyError: pyarrow or rosbags is missing.

    """
    suffix = path.suffix.lower()
    if suffix in _NO_FOLDERS:
        raise OutputError(
            f"'{path}' would be a folder: write {' or '.join(_SUFFIXES)}, or name a folder for a bag"
        )
    if suffix not in _SUFFIXES and boxes:
        raise SourceError(f"a bag cannot hold a row a box: write {', '.join(_SUFFIXES)}")
    fields = (*_FIELDS, *BOX_FIELDS) if boxes else _FIELDS
    if suffix not in _SUFFIXES:
        with ClassificationWriter(path, TOPIC, storage) as recorded:

            def write(answer: Answer) -> None:
                if not answer.error:
                    recorded.write(answer.time_ns, answer.stamp_ns, answer.frame_id, answer.results)

            yield write
        return
    with whole_file(path, keep=True) as partial:
        if suffix == ".parquet":
            with _write_parquet(partial, bag, fields) as write_row:
                yield write_row
        else:
            with partial.open("w", newline="", encoding="utf-8") as file:
                if suffix == ".csv":
                    yield _write_csv(file, top_k, fields)
                else:
                    yield _write_jsonl(file, fields)


def _write_csv(file: TextIO, top_k: int, fields: Sequence[str]) -> Callable[[Answer], None]:
    indices, table = count(), csv.writer(file)
    pairs = [(f"class_{rank}", f"score_{rank}") for rank in range(1, top_k + 1)]
    table.writerow(("index", *fields, *(name for pair in pairs for name in pair)))

    def write(answer: Answer) -> None:
        cells = [cell for result in answer.results for cell in (result.class_id, result.score)]
        about = (getattr(answer, name) for name in fields)
        table.writerow((next(indices), *about, *cells, *[""] * (2 * top_k - len(cells))))

    return write


def _write_jsonl(file: TextIO, fields: Sequence[str]) -> Callable[[Answer], None]:
    indices = count()
    return lambda answer: print(
        json.dumps({"index": next(indices), **_as_json(answer, fields)}, ensure_ascii=False),
        file=file,
    )


@contextmanager
def _write_parquet(
    path: Path, bag: str, fields: Sequence[str]
) -> Iterator[Callable[[Answer], None]]:
    """One row per answer and class; an answer without classes has one row without a class."""
    arrow, parquet = need("pyarrow", PYARROW), need("pyarrow.parquet", PYARROW)
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in ("bag", "topic")),
            *((name, arrow.int64()) for name in ("index", "time_ns", "stamp_ns")),
            *((name, arrow.string()) for name in ("frame_id", "error", "outcome")),
            *((name, _box_type(arrow, name)) for name in fields if name in BOX_FIELDS),
            ("rank", arrow.int32()),
            ("class_id", arrow.string()),
            ("score", arrow.float64()),
        ]
    )
    indices = count()
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        file.write_table(arrow.Table.from_pylist(rows, schema))
        rows.clear()

    def write(answer: Answer) -> None:
        named = {name: getattr(answer, name) for name in fields}
        about = {"bag": bag, "index": next(indices), **named}
        for rank, result in enumerate(answer.results or [None], start=1):
            classed = {} if result is None else {"class_id": result.class_id, "score": result.score}
            rows.append({**about, "rank": rank if classed else None, **classed})
        if len(rows) >= _ROW_GROUP:
            flush()

    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        yield write
        flush()


def _box_type(arrow: Any, name: str) -> Any:
    if name == "number":
        return arrow.int32()
    if name == "changed":
        return arrow.bool_()
    return arrow.string() if name in ("object_id", "detected") else arrow.float64()


def _as_json(answer: Answer, fields: Sequence[str]) -> dict[str, Any]:
    named = {name: getattr(answer, name) for name in fields}
    results = [{"class_id": result.class_id, "score": result.score} for result in answer.results]
    return {**named, "results": results}


def _answer(fields: Mapping[str, Any], results: Iterable[Result]) -> Answer:
    """Return the answer with these fields, read from a file; those of version 0.2 lack the outcome."""
    if "number" in fields:
        raise ValueError("it has a row a box, not one a frame")
    error = fields["error"]
    return Answer(
        fields["topic"],
        int(fields["time_ns"]),
        int(fields["stamp_ns"]),
        fields["frame_id"],
        tuple(results),
        error,
        fields.get("outcome") or (Refused if error else Answered).kind,
    )


def is_results(path: Path) -> bool:
    """Return whether a path holds answers rather than images to classify.

    Raises:
        SourceError: it is neither.

    """
    if path.suffix.lower() in _SUFFIXES:
        return True
    with Bag(path) as bag:
        return bool(bag.topics(*CLASSIFICATIONS)) and not bag.topics(IMAGE, COMPRESSED)


def read_results(path: Path, topic: str = "") -> list[Answer]:
    """Return the answers in a file that `open_results` wrote, or in a bag recorded from the node.

    Args:
        path: the file, or a bag.
        topic: of a bag's classifications; may be empty where there is one.

    Raises:
        SourceError: it is missing, of another kind, or damaged.

    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        return _read_bag(path, topic)
    if suffix == ".parquet":
        return _read_parquet(path)
    read = _read_csv if suffix == ".csv" else _read_jsonl
    try:
        text = read_text(path)  # spreadsheets save UTF-8 with a mark, and UTF-16
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
    if "number" in head:
        raise ValueError("it has a row a box, not one a frame")
    columns = [name for name in head if name in _COLUMNS]
    if head[: len(columns)] != columns or not {*_COLUMNS} - {"outcome"} <= {*columns}:
        raise ValueError(f"its first line is {','.join(head)[:80]!r}")
    for row in filter(None, table):
        if len(row) < len(columns):
            raise ValueError(f"a line has {len(row)} cells")
        cells = row[len(columns) :]
        pairs = zip(cells[::2], cells[1::2])
        results = (Result(name, float(score)) for name, score in pairs if score)
        yield _answer(dict(zip(columns, row)), results)


def _read_jsonl(text: str) -> Iterator[Answer]:
    for line in filter(None, text.split("\n")):  # splitlines() would split at U+2028 too
        fields = json.loads(line)
        results = fields["results"]
        yield _answer(fields, (Result(str(r["class_id"]), float(r["score"])) for r in results))


def _read_parquet(path: Path) -> list[Answer]:
    parquet = need("pyarrow.parquet", PYARROW)
    answers: list[Answer] = []
    try:
        table = parquet.read_table(path)
        for row in table.to_pylist():
            result = () if row["rank"] is None else (Result(row["class_id"], row["score"]),)
            if row["rank"] is not None and row["rank"] > 1:
                answers[-1] = replace(answers[-1], results=(*answers[-1].results, *result))
            else:
                answers.append(_answer(row, result))
    except OSError as error:
        raise SourceError(f"results '{path}' cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SourceError(f"'{path}' holds no results of repghost replay: {error}") from error
    return answers


def _read_bag(path: Path, topic: str) -> list[Answer]:
    with Bag(path) as bag:
        names = [topic.name for topic in bag.topics(*CLASSIFICATIONS)]
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
                (Refused if recorded.error else Answered).kind,
            )
            for recorded in bag.messages(topic or names[0])
        ]
