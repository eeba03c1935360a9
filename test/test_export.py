# SPDX-License-Identifier: Apache-2.0
"""Export to ONNX from random weights at the real sizes, and preprocessing folded into the graph."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.networks import network, random_model

from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.cli import main
from repghost_ros.errors import BackendError, ConversionError, DependencyError
from repghost_ros.paths import share
from repghost_ros.vision.nv12 import COLOR_RANGES, ColorRange
from repghost_ros.zoo.catalogue import MODELS, REPGHOST
from repghost_ros.zoo.model_file import read_model_file

onnx = pytest.importorskip("onnx")
DEMO = share() / "models" / "demo.onnx"


@pytest.mark.parametrize("size", REPGHOST)
def test_every_size_has_the_published_parameters_and_is_fused(size: str, tmp_path: Path) -> None:
    model = random_model(size)
    from repghost_ros.convert.export import export

    exported = export(model, tmp_path / "model.onnx")
    # The vendor's table rounds some sizes and cuts others off.
    figures = MODELS[size].published
    assert figures is None or abs(exported.parameters / 1e6 - figures.params_m) < 0.01
    assert exported.fused_parameters < exported.parameters
    assert 0 < exported.onnx_drift < 1e-4
    written = onnx.load(exported.path)
    operators = [node.op_type for node in written.graph.node]
    assert "BatchNormalization" not in operators
    # What is added are the shortcuts of the bottlenecks, no branches.
    assert operators.count("Add") == sum(len(stage) for stage in model.blocks[:-1])
    assert [entry.version for entry in written.opset_import] == [11]
    backend = OnnxBackend(exported.path)
    assert (backend.width, backend.height, backend.classes) == (224, 224, 1000)


def as_bare(state: dict[str, Any]) -> Any:
    return state


def as_training_script_saves(state: dict[str, Any]) -> Any:
    return {
        "arch": "repghostnet_1_0x",
        "epoch": 299,
        "args": argparse.Namespace(lr=0.6),
        "state_dict": {name: value * 0 for name, value in state.items()},
        "state_dict_ema": {f"module.{name}": value for name, value in state.items()},
    }


def as_compiled_in_parallel(state: dict[str, Any]) -> Any:
    kept = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    return {"model_state_dict": {f"module._orig_mod.{name}": v for name, v in kept.items()}}


@pytest.mark.parametrize(
    ("layout", "fused"),
    [(as_bare, True), (as_training_script_saves, False), (as_compiled_in_parallel, False)],
)
def test_checkpoint_to_store(
    layout: Any, fused: bool, tmp_path: Path, store: Path, capsys: Any
) -> None:
    model = random_model("100")
    import timm.utils
    import torch

    saved = timm.utils.reparameterize_model(model) if fused else model
    torch.save(layout(saved.state_dict()), tmp_path / "weights.pth")
    assert main(["export", "100", "--checkpoint", str(tmp_path / "weights.pth"), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["results"]
    path = store / "repghostnet_100.onnx"
    assert report["path"] == str(path)
    assert (store / f"{path.name}.sha256").is_file()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        truth = model(image).numpy()
    answer = OnnxBackend(path).run(image.numpy())
    assert np.abs(answer - truth).max() < 1e-3 * np.abs(truth).max()


def test_a_model_of_own_classes(tmp_path: Path, store: Path, capsys: Any) -> None:
    model = random_model("100")
    import torch

    model.reset_classifier(3)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    labels, out = tmp_path / "labels.txt", tmp_path / "own.onnx"
    labels.write_text("cup\nfork\nspoon\n")
    command = ["export", "100", "--checkpoint", str(tmp_path / "weights.pth")]
    assert main([*command, "--labels", str(labels)]) == 2  # not into the store
    assert main([*command, "--out", str(out)]) == 2
    assert "3 classes" in capsys.readouterr().err
    assert main([*command, "--out", str(out), "--labels", str(labels)]) == 0
    own = read_model_file(out).own
    assert own.labels == ("cup", "fork", "spoon")
    assert own.crop_share == MODELS["100"].preprocessing.crop_share
    assert not store.exists()


def test_a_missing_package_is_not_a_bad_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_model("111")  # skips without torch
    from repghost_ros.convert.export import timm_network

    (tmp_path / "weights.safetensors").write_bytes(bytes(100))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(DependencyError, match=r"safetensors.*pip install"):
        timm_network("111", tmp_path / "weights.safetensors")


@pytest.mark.parametrize("fused", [False, True])
def test_a_checkpoint_of_another_family(fused: bool, tmp_path: Path) -> None:
    model = network("repvit_m0_9")
    import torch
    from timm.utils import reparameterize_model

    from repghost_ros.convert.export import export, timm_network

    saved = reparameterize_model(model) if fused else model
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    exported = export(timm_network("repvit_m0_9", tmp_path / "weights.pth"), tmp_path / "m.onnx")
    assert exported.onnx_drift < 1e-5
    assert (exported.parameters > exported.fused_parameters) is not fused


def test_safetensors_checkpoint(tmp_path: Path) -> None:
    model = random_model("111")
    from safetensors.torch import save_file

    from repghost_ros.convert.export import timm_network

    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = timm_network("111", tmp_path / "weights.safetensors").state_dict()
    assert all((loaded[name] == value).all() for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("absent", "does not exist"),
        ("garbage", "cannot be read"),
        ("other size", "does not hold the weights of repghostnet_100"),
        ("code", "could run code"),
        ("no weights", "holds no weights"),
    ],
)
def test_bad_checkpoints(content: str, message: str, tmp_path: Path) -> None:
    model = random_model("111" if content == "other size" else "100")
    import torch

    from repghost_ros.convert.export import timm_network

    path = tmp_path / "weights.pth"
    if content == "garbage":
        path.write_bytes(b"garbage" * 100)
    elif content == "other size":
        torch.save(model.state_dict(), path)
    elif content == "code":
        torch.save(model, path)  # a pickled object, which must not be run
    elif content == "no weights":
        torch.save({"epoch": 3}, path)
    with pytest.raises(ConversionError, match=message):
        timm_network("100", path)


def test_without_a_network_timms_weights_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, store: Path
) -> None:
    random_model("100")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["export", "100"]) == 1
    error = capsys.readouterr().err
    assert "repghostnet_100.in1k/resolve/main/model.safetensors" in error
    assert "give the file as --checkpoint" in error
    assert not list(store.glob("*.onnx"))


def test_a_drifting_export_is_not_kept(tmp_path: Path) -> None:
    model = random_model("100")
    from repghost_ros.convert.export import export

    # Fusing reads the statistics, so what an undertrained norm makes infinite cannot survive it.
    model.blocks[0][0].ghost1.fusion_bn[0].running_var.fill_(float("nan"))
    with pytest.raises(ConversionError, match="not kept"):
        export(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("color_range", COLOR_RANGES)
def test_folded_model_answers_like_the_backend(color_range: ColorRange, tmp_path: Path) -> None:
    path = tmp_path / "folded.onnx"
    arguments = ["--fold-preprocess", "--color-range", color_range, "--out", str(path)]
    assert main(["export", "demo", *arguments]) == 0
    backends = [
        OnnxBackend(model, BackendOptions(color_range=color_range)) for model in (DEMO, path)
    ]
    plain, folded = (backend.open_slot() for backend in backends)
    assert folded.nv12.shape == plain.nv12.shape
    rng = np.random.default_rng(0)
    for _ in range(5):
        plain.nv12[:] = folded.nv12[:] = rng.integers(0, 256, plain.nv12.shape, dtype=np.uint8)
        truth = plain.infer()
        # A pixel that lies between two levels may be rounded the other way.
        assert np.abs(folded.infer() - truth).max() < 0.02 * np.abs(truth).max()
    other = next(r for r in COLOR_RANGES if r != color_range)
    with pytest.raises(BackendError, match=f"range '{color_range}'"):
        OnnxBackend(path, BackendOptions(color_range=other))


def test_what_cannot_be_folded(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "folded.onnx"
    assert main(["export", "demo", "--fold-preprocess", "--out", str(path)]) == 0
    again = ["export", str(path), "--fold-preprocess", "--out", str(tmp_path / "twice.onnx")]
    assert main(again) == 1
    assert "1x3xHxW" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo"],
        ["demo", "--fold-preprocess"],
        ["120"],
        ["100", "--out", "model.bin"],
    ],
)
def test_wrong_command_lines(arguments: list[str]) -> None:
    assert main(["export", *arguments]) == 2
