# SPDX-License-Identifier: Apache-2.0
"""Label files: one class name per line in index order, or the formats of other projects."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from repghost_ros.errors import LabelsError
from repghost_ros.files import read_text
from repghost_ros.paths import share
from repghost_ros.zoo.catalogue import DEMO

IMAGENET_CLASSES = 1000
_INDEXED = re.compile(r"(\d+)\s*(?:[-=]>|[:,;=|.)\u2013\u2014-]|\s)\s*(.+)")
_SYNSET = re.compile(r"n\d{8}[\s,:]+(.+)")
_LARGEST = 1_000_000  # bytes; guards against files that are not label files, such as devices


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Return the names in a label file, UTF-8 or, with a byte order mark, UTF-16.

    Names that occur twice, as ImageNet's `crane` does, are told apart by their index: `crane (134)`.

    Args:
        path: the file; see `parse_labels`.
        classes: number of the model's classes.

    Raises:
        LabelsError: the file is missing or unreadable, has blank names, or their number is not that
            of the model's classes.

    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise OSError(f"no file of at most {_LARGEST} bytes")
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise LabelsError(f"labels file '{path}' cannot be read: {error}") from error
    try:
        labels = parse_labels(text)
    except ValueError as error:
        raise LabelsError(f"labels file '{path}' {error}") from error
    if len(labels) != classes:
        hint = ""
        if len(labels) == classes + 1:
            hint = (
                f": its first line is '{labels[0]}', leave out what is not a class, such as a heading "
                "or TensorFlow's background"
            )
        raise LabelsError(
            f"labels file '{path}' has {len(labels)} names, but the model has {classes} classes{hint}"
        )
    return labels


def parse_labels(text: str) -> tuple[str, ...]:
    """Return the class names in a text, in index order.

    Accepted are one name per line, with or without quotes, commas, and a leading index or WordNet
    id; lists and dicts of Python and JSON, by index or by name, as `{0: 'tench, Tinca tinca',
    ...}`, Keras's class index and Hugging Face's `id2label`. Blank lines at the end are left out.

    Raises:
        ValueError: a name is blank, or the indices are not 0, 1, 2 and so on.

    """
    text = text.strip()
    if "\0" in text:
        raise ValueError("is not text: it holds zero bytes, as UTF-16 does; save it as UTF-8")
    labels = _of_literal(text) if text[:1] in ("{", "[") else _of_lines(text)
    if "" in labels:
        raise ValueError(f"has a blank line {labels.index('') + 1}")
    counts = Counter(labels)
    return tuple(
        f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(labels)
    )


def _of_literal(text: str) -> list[str]:
    try:
        try:
            value = json.loads(text)
        except ValueError:
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"is neither a list nor a dict: {error}") from error
    if isinstance(value, dict):
        value = value.get("id2label", value)
    if isinstance(value, dict) and all(
        isinstance(index, int) and not isinstance(index, bool) for index in value.values()
    ):
        value = {index: name for name, index in value.items()}  # by name
    if isinstance(value, dict):
        try:
            value = _in_order({int(index): name for index, name in value.items()})
        except (TypeError, ValueError) as error:
            raise ValueError(f"is not a dict of names by index: {error}") from error
    # Keras has the WordNet id and the name.
    names = [name[-1] if isinstance(name, list) and name else name for name in value]
    for index, name in enumerate(names):
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise ValueError(f"has {name!r} as entry {index}, which is not a name")
    return [str(name).strip() for name in names]


def _in_order(names: dict[int, Any]) -> list[Any]:
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"its {len(names)} indices are not 0 to {len(names) - 1}")
    return [names[index] for index in range(len(names))]


def _of_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    if not all(lines):  # before quotes are taken away
        return lines
    indexed = [_INDEXED.fullmatch(line) for line in lines]
    names = lines
    if len(lines) > 1 and all(indexed):
        by_index = {int(match[1]): match[2] for match in indexed if match}
        if len(by_index) == len(lines) and sorted(by_index) == list(range(len(lines))):
            names = [by_index[index] for index in range(len(lines))]
    names = [_unquoted(name) for name in names]
    prefixed = [_SYNSET.fullmatch(name) for name in names]
    if names and all(prefixed):
        names = [_unquoted(match[1]) for match in prefixed if match]
    return names


def _unquoted(name: str) -> str:
    """Return a name without a trailing comma and surrounding quotes."""
    bare = name[:-1].rstrip() if name[:1] in ("'", '"') and name.endswith(",") else name
    # With the quote inside as well, it is a list such as: "tench", "Tinca tinca".
    if (
        len(bare) > 1
        and bare[0] == bare[-1]
        and bare[0] in ("'", '"')
        and (bare[0] not in bare[1:-1])
    ):
        return bare[1:-1].strip()
    return name


def labels_for(model: str, classes: int) -> tuple[str, ...]:
    """Return the shipped names for a model: the road signs of the demo, else ImageNet's.

    Raises:
        LabelsError: the number of classes differs.

    """
    if model != DEMO and classes != IMAGENET_CLASSES:
        raise LabelsError(
            f"the model has {classes} classes and is not of ImageNet: give its class names in a file "
            "(labels_path of the node, --labels of a command)"
        )
    return read_labels(
        share() / "labels" / f"{'demo' if model == DEMO else 'imagenet'}.txt", classes
    )


def imagenet_synsets() -> tuple[str, ...]:
    """ImageNet-1k's WordNet ids, such as n01440764, in index order."""
    return read_labels(share() / "labels" / "imagenet_synsets.txt", IMAGENET_CLASSES)
