# SPDX-License-Identifier: Apache-2.0
"""Labeled pictures: a folder with a subfolder for each class, and which pictures belong together.

Pictures of one recording or burst look alike. If some were trained with and others measured on, the
accuracy would be too good; so they form a group, which stays on one side.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.errors import FrameError, SourceError
from repghost_ros.sources.folders import IMAGES, files_in, is_data
from repghost_ros.sources.pictures import decode_image
from repghost_ros.teach.collected import read_origins
from repghost_ros.teach.likeness import near, thumbnail
from repghost_ros.zoo.own import NOTHING

LEAST = 5
"""Pictures that a class needs."""
UNLABELED = "unlabeled"
"""The subfolder of pictures that nobody has labeled yet; it is not a class."""
_FORBIDDEN = set('/\\:*?"<>|')
_NUMBERED = re.compile(r"(.*[^\d\W_].*?)[-_#. ]*\d+")
Progress = Callable[[Iterable[Path], int], Iterable[Path]]
"""Wraps the pictures that are worked through; called with how many there are."""


@dataclass(frozen=True)
class LabeledPicture:
    """A picture and its class."""

    path: Path
    truth: int
    """Class index."""
    digest: str
    """The first 16 hexadecimal digits of its content's SHA-256."""
    group: int
    """Pictures of one recording or burst have the same."""


@dataclass(frozen=True)
class Labeled:
    """The pictures of a folder, and the names of their classes."""

    folder: Path
    labels: tuple[str, ...]
    pictures: tuple[LabeledPicture, ...]
    skipped: tuple[tuple[Path, str], ...]
    """Files that cannot be read, and why."""

    @property
    def truth(self) -> np.ndarray:
        """Class indices, int (pictures,)."""
        return np.array([picture.truth for picture in self.pictures], int)

    @property
    def groups(self) -> np.ndarray:
        """Groups, int (pictures,)."""
        return np.array([picture.group for picture in self.pictures], int)

    @property
    def nothing(self) -> int | None:
        """Index of the class `nothing`; None where there is none."""
        return self.labels.index(NOTHING) if NOTHING in self.labels else None


def class_folders(folder: Path) -> list[Path]:
    """Return the subfolders that are classes, by name.

    Raises:
        SourceError: the folder does not exist.

    """
    if not folder.is_dir():
        raise SourceError(f"folder '{folder}' does not exist")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and is_data(path.name))
    return [path for path in inside if path.name != UNLABELED]


def check_class(name: str) -> None:
    """Check that a folder of this name is a class.

    Raises:
        SourceError: it is not.

    """
    if not name or not is_data(name) or name == UNLABELED or set(name) & _FORBIDDEN:
        raise SourceError(f"a class cannot be called '{name}': it is the name of a folder")


def class_counts(folder: Path) -> list[dict[str, Any]]:
    """Return the name and the number of pictures of each class, by name.

    Raises:
        SourceError: the folder does not exist.

    """
    return [
        {"name": each.name, "count": len(files_in(each, IMAGES))} for each in class_folders(folder)
    ]


def read_labeled(folder: Path, progress: Progress = lambda paths, _: paths) -> Labeled:
    """Read a folder with a subfolder for each class.

    Args:
        folder: hidden subfolders and `unlabeled` are not classes.
        progress: wraps the pictures.

    Raises:
        SourceError: there are fewer than two classes, a class has fewer than five readable pictures, or
            the same picture is in two classes.

    """
    paths = {subfolder.name: files_in(subfolder, IMAGES) for subfolder in class_folders(folder)}
    labels = tuple(paths)
    if len(labels) < 2:
        found = f"only '{labels[0]}'" if labels else "none"
        raise SourceError(
            f"'{folder}' needs a subfolder of pictures for each of at least two classes, and has "
            f"{found}: add another class, or '{NOTHING}' with pictures that do not show it"
        )
    jobs = [(path, index) for index, name in enumerate(labels) for path in paths[name]]
    class_of = dict(jobs)
    read: list[tuple[Path, str, np.ndarray]] = []
    skipped = []
    for path in progress(list(class_of), len(class_of)):
        try:
            data = path.read_bytes()
            shown = thumbnail(decode_image(data, str(path)))
        except (FrameError, OSError) as error:
            skipped.append((path, str(error)))
            continue
        read.append((path, sha256(data).hexdigest()[:16], shown))
    _check_counts(folder, labels, Counter(class_of[path] for path, *_ in read), skipped)
    _check_doubles(labels, class_of, [(path, digest) for path, digest, _ in read])
    origins = read_origins(folder)
    groups = _groups([path for path, *_ in read], [s for *_, s in read], class_of, origins)
    pictures = (
        LabeledPicture(path, class_of[path], digest, group)
        for (path, digest, _), group in zip(read, groups, strict=True)
    )
    return Labeled(folder, labels, tuple(pictures), tuple(skipped))


def _check_counts(
    folder: Path,
    labels: Sequence[str],
    counts: Mapping[int, int],
    skipped: Sequence[tuple[Path, str]],
) -> None:
    few = [
        f"'{name}' has {counts.get(i, 0)}"
        for i, name in enumerate(labels)
        if counts.get(i, 0) < LEAST
    ]
    if few:
        unreadable = (
            f" ({len(skipped)} could not be read, such as {skipped[0][1]})" if skipped else ""
        )
        raise SourceError(
            f"every class in '{folder}' needs at least {LEAST} pictures, but {', '.join(few)}"
            f"{unreadable}: add pictures, or move the folder away"
        )


def _check_doubles(
    labels: Sequence[str], class_of: Mapping[Path, int], read: Iterable[tuple[Path, str]]
) -> None:
    first: dict[str, Path] = {}
    for path, digest in read:
        other = first.setdefault(digest, path)
        if class_of[other] != class_of[path]:
            raise SourceError(
                f"the same picture is in two classes, '{other}' in '{labels[class_of[other]]}' and "
                f"'{path}' in '{labels[class_of[path]]}': remove one of them"
            )


def _groups(
    paths: Sequence[Path],
    thumbnails: Sequence[np.ndarray],
    class_of: Mapping[Path, int],
    origins: Mapping[str, str],
) -> list[int]:
    """Group pictures of one recording, of one name before a number, and near-duplicates."""
    leader = list(range(len(paths)))

    def find(at: int) -> int:
        while leader[at] != at:
            leader[at] = leader[leader[at]]
            at = leader[at]
        return at

    keys = [origins.get(path.name, "") for path in paths]
    for numbers in _by(class_of[path] for path in paths).values():
        # One name for a whole class is the camera's way to name files, and tells nothing.
        stems = [_before_number(paths[at]) for at in numbers]
        if len(set(stems)) > 1:
            for at, name in zip(numbers, stems, strict=True):
                keys[at] = keys[at] or (name and f"{paths[at].parent}/{name}")
    for key, numbers in _by(keys).items():
        for at in numbers if key else ():
            leader[find(at)] = find(numbers[0])
    stacked = np.stack(thumbnails)
    for at in range(len(paths)):
        for other in np.flatnonzero(near(stacked[at], stacked[at + 1 :])) + at + 1:
            leader[find(int(other))] = find(at)
    return [find(at) for at in range(len(paths))]


def _by(keys: Iterable[object]) -> dict[object, list[int]]:
    """Return the positions of each key."""
    made: dict[object, list[int]] = defaultdict(list)
    for at, key in enumerate(keys):
        made[key].append(at)
    return made


def _before_number(path: Path) -> str:
    """Return the name before a file's number, such as `kitchen` of kitchen_0012.jpg."""
    match = _NUMBERED.fullmatch(path.stem)
    return match[1] if match else ""


def folds(truth: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Deal groups into folds with about as many pictures of each class: int (pictures,).

    A class whose pictures are all of one group stays in fold -1: measured on, it could not be trained.

    Args:
        truth: int (pictures,), class indices.
        groups: int (pictures,).
        count: folds, at least two; fewer are made where no class has as many groups.

    """
    of_class = {index: set(groups[truth == index].tolist()) for index in set(truth.tolist())}
    lone = {next(iter(found)) for found in of_class.values() if len(found) == 1}
    free = [group for group in np.unique(groups).tolist() if group not in lone]
    made = np.full(len(truth), -1)
    if not free:
        return made
    most = max(len(found - lone) for found in of_class.values())
    count = min(count, most)
    classes = int(truth.max()) + 1
    content = {g: np.bincount(truth[groups == g], minlength=classes) for g in free}
    held = np.zeros((count, classes))
    random = np.random.default_rng(0)
    order = sorted(free, key=lambda g: (-content[g].sum(), random.random()))
    for group in order:
        # The fold that has the least of what the group holds; of equal ones the smallest.
        cost = [(float(held[f] @ content[group]), float(held[f].sum())) for f in range(count)]
        fold = min(range(count), key=lambda f: cost[f])
        held[fold] += content[group]
        made[groups == group] = fold
    return made
