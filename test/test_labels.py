# SPDX-License-Identifier: Apache-2.0
"""Label files and the catalogue."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from repghost_ros.errors import LabelsError
from repghost_ros.files import read_text
from repghost_ros.zoo.catalogue import MODELS, compiled_stem, front, nearest
from repghost_ros.zoo.labels import imagenet_synsets, labels_for, read_labels
from repghost_ros.zoo.record import Published, compiled_name


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
        ("heading\na\nb\nc\n", "4 names.*its first line is 'heading'"),
        ("{0: 'a', 2: 'c', 3: 'd'}", "not 0 to 2"),
        ("{0: 'a', 1: ", "neither a list nor a dict"),
        ("{'x': [], 'y': 1}", "not a dict of names"),
        ("['a', '', 'c']", "blank line 2"),
        ("", "0 names"),
        ('[{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]', "entry 0, which is not a name"),
        ('["a", null, "c"]', "None as entry 1"),
        ('{"a": true, "b": false}', "not a dict of names"),
        ("a\0\nb\0\nc\0\n", "zero bytes"),
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
    assert MODELS["200"].published == Published(9.79, 76.43, 75.25, 2.89, 8.76, 451.42)
    assert MODELS["repvit_m0_9"].file_name("bin") == "RepViT_m0_9_224x224_nv12.bin"
    assert MODELS["mobilenetv2"].file_name("bin") == "mobilenetv2_224x224_nv12.bin"
    assert MODELS["50"].file_name("onnx") == "repghostnet_050.onnx"


def test_names_of_files_are_built_in_one_way() -> None:
    for record in MODELS.values():
        assert f"{compiled_name(record.stem)}.bin" == record.file_name("bin")
    assert compiled_stem("150") == "RepGhost_150"
    assert compiled_stem("mine") == "mine"


def test_the_front_is_beaten_by_none() -> None:
    names = front()
    assert names == [
        *("mobileone_s0", "mobilenetv4_conv_small", "mobileone_s1", "100"),
        *("repvit_m0_9", "repvit_m1_0", "repvit_m1_1"),
    ]
    zoo = [record.published for record in MODELS.values() if record.published]
    for record in MODELS.values():
        own = record.published
        if own:
            better = [p for p in zoo if p.fps > own.fps and p.int8_top1 > own.int8_top1]
            assert not (record.name in names and better)


def test_a_wrong_name_gets_the_nearest() -> None:
    assert nearest("RepViT-m0.9") == "repvit_m0_9"
    assert nearest("MobileOne_S0") == "mobileone_s0"
    assert nearest("xyz") == ""


AS_PEOPLE_HAVE_THEM = {
    "lines": "tench\ngreat white shark\ncrane\n",
    "CRLF, a byte order mark, blank last lines": (
        "\ufefftench\r\ngreat white shark\r\ncrane\r\n\r\n \r\n"
    ),
    "no newline at the end": "tench\ngreat white shark\ncrane",
    "indices and dashes": "0 - tench\n1 - great white shark\n2 - crane\n",
    "indices and arrows": "0 -> tench\n1 => great white shark\n2->crane\n",
    "quotes": "'tench'\n'great white shark'\n'crane'\n",
    "quotes and commas": '"tench",\n"great white shark",\n"crane",\n',
    "a dict of Python": "{0: 'tench',\n 1: 'great white shark',\n 2: 'crane'}",
    "a dict in another order": "{2: 'crane', 0: 'tench', 1: 'great white shark'}",
    "the lines of a dict": "0: 'tench',\n1: 'great white shark',\n2: 'crane',\n",
    "a dict of JSON": '{"0": "tench", "1": "great white shark", "2": "crane"}',
    "by name": '{"crane": 2, "tench": 0, "great white shark": 1}',
    "a class index of Keras": (
        '{"0": ["n01440764", "tench"], "1": ["n01484850", "great white shark"], '
        '"2": ["n02012849", "crane"]}'
    ),
    "a configuration of Hugging Face": (
        '{"id2label": {"0": "tench", "1": "great white shark", "2": "crane"}, "x": 1}'
    ),
    "a list": "['tench', 'great white shark', 'crane']",
    "WordNet ids": "n01440764 tench\nn01484850 great white shark\nn02012849 crane\n",
    "WordNet ids and tabs": "n01440764\ttench\nn01484850\tgreat white shark\nn02012849\tcrane\n",
    "indices": "0 tench\n1 great white shark\n2 crane\n",
    "indices and dots": "0. tench\n1. great white shark\n2. crane\n",
    "indices and bars, in another order": "2|crane\n0|tench\n1|great white shark\n",
    "a properties file": "0=tench\n1 = great white shark\n2=crane\n",
    "indices and commas": "0,tench\n1,great white shark\n2,crane\n",
}


@pytest.mark.parametrize("text", AS_PEOPLE_HAVE_THEM.values(), ids=AS_PEOPLE_HAVE_THEM)
def test_label_files_as_people_have_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert read_labels(path, 3) == ("tench", "great white shark", "crane")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_files_are_utf8_or_carry_a_mark(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("café 1\r\nthé 2\n".encode(encoding))
    assert read_text(path).splitlines() == ["café 1", "thé 2"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "gbk"])
def test_other_encodings_say_what_to_do(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("café 1\n".encode(encoding))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_text(path)


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"caf\xe9.jpg\n")
    assert os.fsencode(read_text(path, "surrogateescape").strip()) == b"caf\xe9.jpg"


def test_utf16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("café\nthé\n".encode("utf-16"))
    assert read_labels(path, 2) == ("café", "thé")


def test_names_that_occur_twice_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("crane\nmaillot\ncrane\nmaillot, tank suit\nmaillot\n")
    names = ("crane (0)", "maillot (1)", "crane (2)", "maillot, tank suit", "maillot (4)")
    assert read_labels(path, 5) == names


@pytest.mark.parametrize(
    "text",
    [
        "3 of hearts\n4 of hearts\n",  # no indices
        "1\n0\n",
        "007\n2001: A Space Odyssey\n",
        "n01440764\nn01443537\n",
        "rock 'n' roll\nit's, well,\n",
        '"tench", "Tinca tinca"\n"crane", "Grus"\n',
    ],
)
def test_names_that_look_like_something_else_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert read_labels(path, 2) == tuple(text.splitlines())


def test_the_records_say_what_timm_says() -> None:
    """Interpolation, crop, mean and license of the weights; the zoo's input is 224x224 even so."""
    pytest.importorskip("torch", reason="torch is not installed")
    from training.train_demo import import_timm

    timm = import_timm()
    for record in MODELS.values():
        if not record.timm:
            continue
        own, preprocessing = timm.get_pretrained_cfg(record.weights[5:]), record.preprocessing
        assert own.hf_hub_id == record.weights
        assert timm.is_model(record.timm)
        assert (own.crop_pct, own.interpolation, own.license) == (
            preprocessing.crop_share,
            preprocessing.interpolation,
            record.license,
        )
        assert np.allclose(np.array(preprocessing.mean) / 255, own.mean, atol=1e-6)
        assert np.allclose(1 / np.array(preprocessing.scale) / 255, own.std, atol=1e-4)
