"""Label files: one class name a line, in index order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from repghost_ros.errors import LabelsError
from repghost_ros.paths import share
from repghost_ros.zoo.catalogue import DEMO

IMAGENET_CLASSES = 1000
_LARGEST = 1_000_000  # bytes; against what is no label file, such as a device


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """The names in a UTF-8 label file.

    Args:
        path: the file, one name a line.
        classes: how many the model has.

    Raises:
        LabelsError: the file is missing, unreadable, has blank or repeated names, or another number
            of them than the model has classes.

    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise OSError(f"no file of at most {_LARGEST} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"labels file '{path}' cannot be read: {error}") from error
    labels = tuple(line.strip() for line in text.splitlines())
    if "" in labels:
        raise LabelsError(f"labels file '{path}' has a blank line {labels.index('') + 1}")
    if len(labels) != classes:
        raise LabelsError(
            f"labels file '{path}' has {len(labels)} names, but the model has {classes} classes"
        )
    name, count = Counter(labels).most_common(1)[0]
    if count > 1:
        raise LabelsError(f"labels file '{path}' names '{name}' {count} times")
    return labels


def labels_for(model: str, classes: int) -> tuple[str, ...]:
    """The shipped names for a model: the road signs of the demo, else ImageNet's.

    Raises:
        LabelsError: the model has another number of classes.

    """
    if model != DEMO and classes != IMAGENET_CLASSES:
        raise LabelsError(
            f"the model has {classes} classes and is not of ImageNet: name its labels file in "
            "labels_path"
        )
    return read_labels(
        share() / "labels" / f"{'demo' if model == DEMO else 'imagenet'}.txt", classes
    )


def imagenet_synsets() -> tuple[str, ...]:
    """ImageNet-1k's WordNet ids, such as n01440764, in index order."""
    return read_labels(share() / "labels" / "imagenet_synsets.txt", IMAGENET_CLASSES)
