"""Label files and the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from repghost_ros.errors import LabelsError
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.labels import imagenet_synsets, labels_for, read_labels


def test_shipped_labels() -> None:
    names = labels_for("150", 1000)
    assert (names[0], names[1], names[999]) == ("tench", "goldfish", "toilet tissue")
    assert (imagenet_synsets()[0], imagenet_synsets()[999]) == ("n01440764", "n15075141")
    with pytest.raises(LabelsError, match="labels_path"):
        labels_for("", 17)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\nb\n", "2 names"),
        ("a\n\nc\n", "blank line 2"),
        ("a\nb\na\n", "'a' 2 times"),
        ("", "0 names"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(LabelsError, match=reason) as error:
        read_labels(path, 3)
    assert str(path) in str(error.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for name in ("missing.txt", "latin.txt"):
        with pytest.raises(LabelsError, match=name):
            read_labels(tmp_path / name, 1)


def test_catalogue_has_the_archives_names() -> None:
    assert MODELS["150"].file_name("bin") == "RepGhost_150_224x224_nv12.bin"
    assert MODELS["150"].file_name("onnx") == "repghostnet_150.onnx"
    assert MODELS["200"].published.fps == 451
