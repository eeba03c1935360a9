# SPDX-License-Identifier: Apache-2.0
"""Labeled pictures: an ImageNet-style folder or a list, and the ways to name a class."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from repghost_ros.errors import SourceError
from repghost_ros.files import read_text
from repghost_ros.sources.folders import IMAGES, files_in
from repghost_ros.zoo.labels import IMAGENET_CLASSES, imagenet_synsets


@dataclass(frozen=True)
class Sample:
    """A picture and what it shows."""

    path: Path
    truth: int | None
    """Class index, or None where it is unknown."""


class Classes:
    """The names of a model's classes: labels, WordNet ids, indices, and aliases of the user's.

    Args:
        labels: class names in index order.
        aliases: other names -> any of the former.

    """

    def __init__(self, labels: Sequence[str], aliases: Mapping[str, str] | None = None) -> None:
        self.labels = tuple(labels)
        plain = Counter(map(_plain, labels))
        names = {_plain(name): i for i, name in enumerate(labels) if plain[_plain(name)] == 1}
        names |= {label: index for index, label in enumerate(labels)}
        if len(labels) == IMAGENET_CLASSES:
            names |= {synset: index for index, synset in enumerate(imagenet_synsets())}
        # A label of 007 is meant by 7, too.
        numbers = {str(int(name)): index for name, index in names.items() if name.isdecimal()}
        self._names = numbers | names
        self._aliases = aliases or {}

    def indices(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the index of the class that a name means, or None.

        Numbers are labels if all of these names that are numbers are labels, else indices.

        Args:
            names: all that are used together.

        """
        meant = {name: self._aliases.get(name, name) for name in names}
        numbers = [name for name in meant.values() if name.isdecimal()]
        numbers_are_labels = all(self._label(number) is not None for number in numbers)
        return {
            name: self._label(target)
            if numbers_are_labels or not target.isdecimal()
            else self._index(target)
            for name, target in meant.items()
        }

    def _label(self, name: str) -> int | None:
        found = self._names.get(name, self._names.get(_plain(name)))
        return self._names.get(str(int(name))) if found is None and name.isdecimal() else found

    def _index(self, number: str) -> int | None:
        return int(number) if int(number) < len(self.labels) else None

    def nearest(self, name: str) -> str | None:
        """Return the label that is spelled most like a name, None if none is."""
        plain = {_plain(label): label for label in self.labels}
        close = get_close_matches(_plain(name), plain, n=1)
        return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").casefold()


def find_samples(folder: Path, classes: Classes) -> list[Sample]:
    """Return the pictures in an ImageNet-style folder, sorted.

    A subfolder is called like its pictures' class, see `Classes`; labels may have underscores for
    spaces. Pictures of a folder without such subfolders are unlabeled.

    Raises:
        SourceError: there are no pictures, or some subfolders name classes and others do not.

    """
    if not folder.is_dir():
        raise SourceError(f"folder '{folder}' does not exist")
    found = files_in(folder, IMAGES)
    if not found:
        raise SourceError(f"folder '{folder}' holds no images")
    index_of = classes.indices(subfolders(folder, found))
    unknown = [name for name, index in index_of.items() if index is None]
    if unknown and len(unknown) < len(index_of):
        raise SourceError(f"'{folder}' {unknown_folders(unknown, classes)}")
    return [
        Sample(
            path, index_of.get(path.relative_to(folder).parts[0]) if path.parent != folder else None
        )
        for path in found
    ]


def subfolders(folder: Path, files: Iterable[Path]) -> list[str]:
    """Return the names of the folders in `folder` that hold the files, sorted."""
    return sorted({path.relative_to(folder).parts[0] for path in files if path.parent != folder})


def unknown_folders(names: Sequence[str], classes: Classes) -> str:
    """Return the end of an error about folders that name no class, with the nearest class of each."""
    listed = ", ".join(
        f"'{name}' (nearest: '{near}')" if (near := classes.nearest(name)) else f"'{name}'"
        for name in names
    )
    return (
        f"has folders that name no class of the model: {listed}; rename them, take them out, or give "
        "--class-map FILE.csv with lines FOLDER,CLASS"
    )


def read_class_map(path: Path) -> dict[str, str]:
    """Return the classes by folder from a CSV of lines FOLDER,CLASS.

    Raises:
        SourceError: it cannot be read, or a line has not two cells.

    """
    try:
        lines = read_text(path).splitlines()
        rows = [row for row in csv.reader(lines) if row and not row[0].startswith("#")]
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(f"class map '{path}' cannot be read: {error}") from error
    for row in rows:
        if len(row) != 2:
            raise SourceError(
                f"class map '{path}' has a line '{','.join(row)}': expected FOLDER,CLASS"
            )
    return {folder.strip(): name.strip() for folder, name in rows}


@dataclass(frozen=True)
class _Reading:
    """One way to split a line of a list."""

    path: Path
    name: str


def read_val_list(path: Path, folder: Path, classes: Classes) -> list[Sample]:
    """Return samples from lines of a picture's path below `folder`, blanks or a comma, and its class.

    The class is named as `Classes` allows. Lines that begin with # are ignored.

    Raises:
        SourceError: the list cannot be read, or a line is invalid.

    """
    try:
        lines = read_text(path, "surrogateescape").splitlines()  # file names may be any bytes
    except (OSError, ValueError) as error:
        raise SourceError(f"list '{path}' cannot be read: {error}") from error
    # Paths and labels may contain blanks: the split that gives a file and a class is the one.
    readings = {
        number: [
            _Reading(folder / line[: gap.start()], line[gap.end() :])
            for gap in re.finditer(r"[\s,]+", line)
        ]
        for number, line in enumerate(map(str.strip, lines), start=1)
        if line and not line.startswith("#")
    }
    index_of = classes.indices(reading.name for line in readings.values() for reading in line)
    samples = []
    for number, line in readings.items():
        known = [reading for reading in line if index_of[reading.name] is not None]
        if not known:
            raise SourceError(
                f"line {number} of '{path}' is '{lines[number - 1].strip()}': expected PATH CLASS, "
                "CLASS an index, a WordNet id or a label of the model"
            )
        chosen = next((reading for reading in known if reading.path.is_file()), known[0])
        samples.append(Sample(chosen.path, index_of[chosen.name]))
    if not samples:
        raise SourceError(f"list '{path}' is empty")
    return samples
