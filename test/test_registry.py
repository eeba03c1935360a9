# SPDX-License-Identifier: Apache-2.0
"""The choice of a runtime, and the errors where none is usable."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from repghost_ros import open_model
from repghost_ros.backends import hobot_dnn, libdnn, onnx
from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.registry import BPU_RUNTIMES, choose
from repghost_ros.errors import BackendError
from repghost_ros.paths import share
from repghost_ros.zoo.model_file import read_model_file

VENDOR = Path(__file__).parent.parent / "emulator" / "vendor"
BIN, ONNX = Path("model.bin"), Path("model.onnx")


@pytest.fixture(autouse=True)
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPGHOST_LIBDNN", raising=False)
    for package in ("hobot_dnn", "hobot_dnn_rdkx5"):
        monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture
def libdnn_here(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    monkeypatch.setenv("REPGHOST_LIBDNN", str(library))


@pytest.fixture
def hobot_dnn_here(libdnn_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("hobot_dnn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(VENDOR))


@pytest.mark.parametrize("backend", ["auto", "onnx"])
@pytest.mark.parametrize("bpu_runtime", BPU_RUNTIMES)
def test_a_pc_runs_onnx(backend: str, bpu_runtime: str) -> None:
    assert choose(backend, bpu_runtime) is onnx.RUNTIME
    assert choose(backend, bpu_runtime, path=ONNX) is onnx.RUNTIME


@pytest.mark.parametrize("path", [None, BIN])
def test_a_pc_has_no_bpu(path: Path | None) -> None:
    reasons = r"libdnn: libdnn.so is not here.*hobot_dnn: hobot_dnn"
    with pytest.raises(BackendError, match=reasons):
        choose("bpu", path=path)
    with pytest.raises(BackendError) as error:
        choose("bpu", "hobot_dnn", path=path)
    assert "libdnn.so" not in str(error.value)  # only what was asked for is told of


def test_a_file_for_the_board_says_what_a_pc_can_run() -> None:
    with pytest.raises(
        BackendError, match="model.bin' is for the board's BPU; on a PC use the .onnx"
    ):
        choose(path=BIN)


def test_the_board_runs_the_fastest(libdnn_here: None) -> None:
    assert choose() is libdnn.RUNTIME
    assert choose(path=BIN) is libdnn.RUNTIME
    assert choose("onnx") is onnx.RUNTIME
    assert choose(path=ONNX) is onnx.RUNTIME


def test_the_board_runs_what_was_asked_for(hobot_dnn_here: None) -> None:
    assert choose("bpu", "hobot_dnn") is hobot_dnn.RUNTIME
    assert choose(bpu_runtime="hobot_dnn", path=BIN) is hobot_dnn.RUNTIME
    assert choose(bpu_runtime="libdnn") is libdnn.RUNTIME


@pytest.mark.parametrize("error", [RuntimeError, OSError, ImportError, ValueError, SystemError])
def test_a_package_that_breaks_on_import_breaks_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    package = tmp_path / "hobot_dnn"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {error.__name__}('libcnn.so is missing')")
    for name in [name for name in sys.modules if name.startswith("hobot_dnn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert choose() is onnx.RUNTIME
    with pytest.raises(BackendError, match=f"{error.__name__}: libcnn.so is missing"):
        choose("bpu")


def test_nothing_is_probed_that_is_not_needed(
    libdnn_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = []
    for module in (hobot_dnn, onnx):
        monkeypatch.setattr(module, "why_not", lambda *arguments: probed.append(arguments))
    choose()
    choose(path=BIN)
    choose(bpu_runtime="libdnn")
    assert not probed


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        (("tpu",), {}, "'tpu' is unknown.*auto, bpu, onnx, sim"),
        (("bpu", "hbm_runtime"), {}, "'hbm_runtime' is unknown.*auto, libdnn, hobot_dnn"),
        (("onnx",), {"path": BIN}, "cannot run it: 'model.bin' is a file for the backend 'bpu'"),
        (("bpu",), {"path": ONNX}, "cannot run it: 'model.onnx' is a file for the backend 'onnx'"),
        (("auto",), {"path": Path("model.txt")}, "'model.txt' is not a model file.*bin, .*onnx"),
        (("auto",), {"path": Path("model.hbm")}, "use the .bin that it was compiled into"),
    ],
    ids=str,
)
def test_choices_that_cannot_be(
    arguments: tuple[str, ...], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        choose(*arguments, **options)


def test_versions_are_those_of_the_installed_packages() -> None:
    assert onnx.RUNTIME.version() == metadata.version("onnxruntime")


@pytest.fixture(scope="module")
def opened() -> list[Path]:
    """Every file that Python opens from now on; nothing removes the hook."""
    paths: list[Path] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            paths.append(Path(arguments[0]))

    sys.addaudithook(note)
    return paths


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize("name", ["demo.onnx", "demo_224x224_nv12.bin"])
def test_a_model_file_is_read_once_when_it_is_opened(
    name: str, opened: list[Path], tmp_path: Path
) -> None:
    """Besides what the runtime's own library reads of it, which Python does not see."""
    labels = share() / "labels" / "demo.txt"
    path = tmp_path / name
    path.write_bytes((share() / "models" / name).read_bytes())
    opened.clear()
    with open_model(model_path=path, labels_path=labels) as model:
        assert model.classes == 17
    assert opened.count(path) == 1


def test_what_was_chosen_opens_the_model() -> None:
    path = share() / "models" / "demo.onnx"
    backend = choose(path=path).open(read_model_file(path), BackendOptions())
    assert backend.runtime.startswith("ONNX Runtime ")
    backend.close()
