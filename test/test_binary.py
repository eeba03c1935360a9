# SPDX-License-Identifier: Apache-2.0
"""The records of compiled files: files laid out like the compiler's, and its own where installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.compiled import compiled, field, graph, settings

from emulator.board import write_model
from repghost_ros import open_model
from repghost_ros.backends.base import BackendOptions
from repghost_ros.cli import main
from repghost_ros.errors import BackendError
from repghost_ros.paths import share
from repghost_ros.zoo.binary import read_compiled
from repghost_ros.zoo.model_file import choose_color_range, read_model_file

DEMO = share() / "models" / "demo.onnx"
DEMO_BIN = share() / "models" / "demo_224x224_nv12.bin"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.bin"


def chosen(path: Path, wanted: str) -> str:
    return choose_color_range(path, read_model_file(path).color_range, wanted)


def test_reads_how_it_was_compiled(path: Path) -> None:
    (model,) = read_compiled(compiled(path, batch=4))
    assert (model.name, model.march, model.batch) == ("m", "bayes-e", 4)
    assert (model.inputs[0].name, model.inputs[0].shape) == ("data", (4, 224, 224, 3))
    assert model.outputs[0].shape == (4, 1000)
    assert model.takes_nv12
    assert model.color_range == "full"
    assert model.unfit() == ""
    assert model.settings["MEAN_VALUE"] == "123.675,116.28,103.53,"


def test_a_packed_file_holds_several(path: Path) -> None:
    path.write_bytes(
        field(5, graph("one"))
        + field(5, graph("four", batch=4))
        + field(6, settings(MODEL_PREFIX="four"))
        + field(6, settings(MODEL_PREFIX="one", INPUT_SPACE_AND_RANGE="bt601_video;"))
    )
    one, four = read_compiled(path)
    assert (one.name, one.batch, one.color_range) == ("one", 1, "limited")
    assert (four.name, four.batch, four.color_range) == ("four", 4, "full")
    with pytest.raises(BackendError, match="different ranges"):
        _ = read_model_file(path).color_range


@pytest.mark.parametrize("cut", [1, 3, 9000, 10100, 10200])
def test_what_is_cut_short_is_left_to_the_runtime(path: Path, cut: int) -> None:
    whole = compiled(path).read_bytes()
    path.write_bytes(whole[:cut])
    assert cut < len(whole)
    assert read_compiled(path) == ()
    assert chosen(path, "auto") == "full"
    assert chosen(path, "limited") == "limited"


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, bytes(5000), b"\xff" * 5000])
def test_what_is_no_such_file_is_left_to_the_runtime(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_compiled(path) == ()


def test_the_emulated_boards_files_are_unknown(path: Path) -> None:
    assert read_compiled(write_model(path)) == ()


@pytest.mark.parametrize(
    ("recorded", "expected"), [("regular", "full"), ("bt601_video", "limited")]
)
def test_the_range_is_the_files(path: Path, recorded: str, expected: str) -> None:
    compiled(path, INPUT_SPACE_AND_RANGE=f"{recorded};")
    assert chosen(path, "auto") == expected
    assert chosen(path, expected) == expected
    other = "limited" if expected == "full" else "full"
    with pytest.raises(BackendError, match=f"range '{expected}'.* not to '{other}'"):
        chosen(path, other)


@pytest.mark.parametrize(
    ("changed", "kind", "why"),
    [
        ({"MARCH": "bernoulli2"}, 7, r"bernoulli2 \(RDK X3\), not for bayes-e"),
        ({"MARCH": "nash-e"}, 7, r"nash-e \(RDK S100\)"),
        ({"MARCH": "unheard-of"}, 7, r"unheard-of, not"),
        ({"INPUT_TYPE_RT": "rgb;"}, 2, "takes rgb, not NV12"),
    ],
)
def test_what_an_rdk_x5_cannot_run(
    path: Path, changed: dict[str, Any], kind: int, why: str, capsys: Any
) -> None:
    (model,) = read_compiled(compiled(path, kind=kind, **changed))
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(model.unfit())
    assert main(["info", str(path)]) == 1
    assert "not" in capsys.readouterr().out


def test_limited_range_takes_nv12_too(path: Path) -> None:
    """The compiler calls its input by another name then."""
    compiled(path, INPUT_TYPE_RT="yuv420sp_bt601_video;", INPUT_SPACE_AND_RANGE="bt601_video;")
    (model,) = read_compiled(path)
    assert model.takes_nv12
    assert model.unfit() == ""


def test_a_folded_model_records_its_range(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folded = tmp_path / "folded.onnx"
    command = ["export", "demo", "--fold-preprocess", "--color-range", "limited"]
    assert main([*command, "--out", str(folded)]) == 0
    assert read_model_file(folded).color_range == "limited"
    assert read_model_file(DEMO).color_range is None
    with open_model(model_path=str(folded), labels_path=str(share() / "labels/demo.txt")) as model:
        assert model.color_range == "limited"
    with pytest.raises(BackendError, match="range 'limited'"):
        open_model(model_path=str(folded), options=BackendOptions(color_range="full"))


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize(("recorded", "range"), [("regular", "full"), ("bt601_video", "limited")])
def test_a_model_on_the_board_takes_the_range_of_its_file(
    path: Path, recorded: str, range: str
) -> None:
    compiled(path, INPUT_SPACE_AND_RANGE=f"{recorded};")
    labels = share() / "labels/demo.txt"  # the emulated board takes such a file for the demo model
    with open_model(model_path=path, labels_path=labels) as model:
        assert model.color_range == range


@pytest.mark.usefixtures("board")
def test_a_file_that_records_nothing_is_given_the_full_range(path: Path) -> None:
    with open_model(model_path=write_model(path)) as model:
        assert model.color_range == "full"


def test_info(path: Path, capsys: Any) -> None:
    pytest.importorskip("onnx")
    compiled(path, batch=4, INPUT_SPACE_AND_RANGE="bt601_video;")
    assert main(["info", str(path), "demo", str(DEMO), "--json"]) == 0
    binary, *_, float_model = json.loads(capsys.readouterr().out)["results"]
    (model,) = binary["models"]
    assert (model["march"], model["batch"], model["classes"]) == ("bayes-e", 4, 1000)
    assert (model["color_range"], model["takes_nv12"], model["unfit"]) == ("limited", True, None)
    assert model["mean"] == "123.675,116.28,103.53"
    assert binary["bytes"] == path.stat().st_size
    assert float_model["inputs"] == [{"name": "data", "shape": [1, 3, 224, 224], "layout": "NCHW"}]
    assert (float_model["classes"], float_model["labels"]) == (17, 17)
    assert (float_model["fused"], float_model["quantized"]) == (True, False)
    assert main(["info", str(path), str(DEMO)]) == 0
    said = capsys.readouterr().out
    assert "1x3x224x224 NCHW" in said
    assert "4x224x224x3" in said


def test_info_of_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPGHOST_HOME", str(tmp_path))
    assert main(["info", "150"]) == 1
    assert main(["info", str(tmp_path / "absent.bin")]) == 1
    assert main(["info", "picture.png"]) == 2
    (tmp_path / "page.bin").write_text("<html>" + "sorry " * 2000)
    assert main(["info", str(tmp_path / "page.bin")]) == 1


@pytest.mark.skipif(not DEMO_BIN.is_file(), reason="no compiled demo model is shipped")
def test_the_compilers_own_file() -> None:
    (model,) = read_compiled(DEMO_BIN)
    assert (model.march, model.batch, model.color_range) == ("bayes-e", 1, "full")
    assert (model.inputs[0].shape, max(model.outputs[0].shape)) == ((1, 224, 224, 3), 17)
    assert model.unfit() == ""
