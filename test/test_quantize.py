# SPDX-License-Identifier: Apache-2.0
"""Quantizing on drawn pictures: ONNX Runtime's own way, and what surrounds the vendor's toolchain."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.pictures import sign_folder

import repghost_ros
from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.onnx import NormalizingSlot, OnnxBackend
from repghost_ros.backends.toolchain import Toolchain
from repghost_ros.cli import main
from repghost_ros.cli import quantize as quantize_command
from repghost_ros.cli.terminal import INTERRUPTED
from repghost_ros.convert.calibration import Calibration, calibrate, see, spread
from repghost_ros.convert.compilation import prepare
from repghost_ros.convert.quantization import Comparison, compare_precisions, normalize, quantize
from repghost_ros.errors import ConversionError, DependencyError
from repghost_ros.paths import share
from repghost_ros.sources.pictures import find, read_image
from repghost_ros.sources.signs import LABELS
from repghost_ros.vision.nv12 import COLOR_RANGES, ColorRange, to_nv12, to_rgb
from repghost_ros.vision.view import Fit
from repghost_ros.zoo.catalogue import MODELS
from repghost_ros.zoo.record import IMAGENET

onnx = pytest.importorskip("onnx")
DEMO = share() / "models" / "demo.onnx"
PER_CLASS = 6
BYTES = 224 * 224 * 3 * 4

# A toolchain that goes wrong, as MAPPER_FAULT says; test_toolchain.py runs the real one.
MAPPER = f"""\
#!{sys.executable}
import os, subprocess, sys, time
from pathlib import Path
print("Start to calibrate the model.", flush=True)
if os.environ["MAPPER_FAULT"] == "fails":
    print("ERROR the model holds an operator that nobody knows", file=sys.stderr)
    sys.exit(3)
if os.environ["MAPPER_FAULT"] == "hangs":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("children").write_text(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(600)
print("Start to compile the model with march bayes-e.", flush=True)
"""


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a folder a class; pictures of different classes have the same names."""
    return sign_folder(tmp_path_factory.mktemp("signs"), 7, PER_CLASS)


@pytest.fixture(scope="module")
def calibration(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibrate(signs, tmp_path_factory.mktemp("out"), samples=2 * len(LABELS))


@pytest.fixture(scope="module")
def int8(calibration: Calibration) -> Path:
    return quantize(DEMO, calibration, calibration.folder.parent)


@pytest.fixture(scope="module")
def compared(int8: Path, calibration: Calibration) -> Comparison:
    return compare_precisions(DEMO, int8, calibration)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a store with a stand-in for size 150, and no archive to download from."""
    store = tmp_path / "store"
    store.mkdir()
    (store / MODELS["150"].file_name("onnx")).write_bytes(DEMO.read_bytes())
    monkeypatch.setenv("REPGHOST_HOME", str(store))
    monkeypatch.setenv("REPGHOST_MODEL_URL", "http://127.0.0.1:9/")
    return store


@pytest.fixture
def mapper(no_toolchain: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a toolchain with an hb_mapper of our own."""
    program = tmp_path / "bin" / "hb_mapper"
    program.parent.mkdir()
    program.write_text(MAPPER)
    program.chmod(0o755)
    toolchain = Toolchain(program.parent, Path(sys.executable), "3.49.15")
    monkeypatch.setattr(quantize_command, "find_toolchain", lambda: toolchain)


@pytest.fixture(autouse=True)
def no_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here."""

    def find() -> Toolchain:
        raise DependencyError("there is none")

    monkeypatch.setattr(quantize_command, "find_toolchain", find)


def small_model(path: Path, *, opset: int = 11, weight: float = 1.0) -> Path:
    """Write a classifier of three classes that takes 96x64 pictures."""
    rng = np.random.default_rng(0)
    helper = onnx.helper
    weights = {
        "kernels": weight * rng.normal(size=(8, 3, 3, 3)),
        "matrix": rng.normal(size=(3, 8)),
        "offsets": rng.normal(size=3),
    }
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 64, 96])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "kernels"], ["features"]),
            helper.make_node("Relu", ["features"], ["positive"]),
            helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "matrix", "offsets"], ["logits"], transB=1),
        ],
        "small",
        [image],
        [logits],
        [
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=6), path)
    return path


def numbers(text: str) -> list[float]:
    return [float(value) for value in text.split()]


def test_samples_are_spread() -> None:
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread("abc", 5) == ["a", "b", "c"]


def test_every_class_is_calibrated_with(calibration: Calibration, signs: Path) -> None:
    classes = [path.parent.name for path in calibration.pictures]
    assert sorted(classes) == sorted(2 * LABELS)
    assert {*calibration.pictures, *calibration.held_out} == set(find([signs]))
    assert not {*calibration.pictures} & {*calibration.held_out}
    assert set(calibration.tensors) == set(calibration.folder.iterdir())
    assert len(calibration.tensors) == len(calibration.pictures)


@pytest.mark.parametrize("color_range", COLOR_RANGES)
def test_tensors_are_what_the_backend_sees(
    color_range: ColorRange, signs: Path, tmp_path: Path
) -> None:
    made = calibrate(signs, tmp_path, samples=3, color_range=color_range)
    slot = OnnxBackend(DEMO, BackendOptions(color_range=color_range)).open_slot()
    assert isinstance(slot, NormalizingSlot)
    for tensor, picture in zip(made.tensors, made.pictures, strict=True):
        to_nv12(read_image(picture), slot.nv12, color_range=color_range)
        raw = np.fromfile(tensor, np.float32)
        assert raw.nbytes == BYTES
        rgb = to_rgb(slot.nv12, color_range)
        assert np.ptp(rgb) > 100
        assert (raw.reshape(3, 224, 224) == rgb.transpose(2, 0, 1)).all()
        slot.infer()
        assert (normalize(made.read(tensor), slot.backend) == slot.image).all()


def test_crops_as_imagenets_evaluation(tmp_path: Path) -> None:
    """White but for the frame that the evaluation cuts away."""
    picture = np.zeros((256, 512, 3), np.uint8)
    picture[16:240, 144:368] = 255
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    made = calibrate(tmp_path, tmp_path / "out", fit=Fit("crop"))
    assert (made.read(made.tensors[0]) == 255).all()


def test_a_later_run_leaves_nothing_of_an_earlier(signs: Path, tmp_path: Path) -> None:
    calibrate(signs, tmp_path, samples=9)
    made = calibrate(signs, tmp_path, samples=4)
    assert sorted(made.folder.iterdir()) == sorted(made.tensors)
    assert len(made.tensors) == 4


def test_broken_pictures_are_left_out(signs: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "good.png").write_bytes((signs / "stop" / "0.png").read_bytes())
    (folder / "broken.png").write_bytes((signs / "stop" / "1.png").read_bytes()[:300])
    (folder / "text.jpg").write_text("no picture")
    made = calibrate(folder, tmp_path / "out")
    assert made.pictures == (folder / "good.png",)
    assert [path.name for path, _ in made.skipped] == ["broken.png", "text.jpg"]
    arguments = ["demo", "--calibration", str(folder), "--out", str(tmp_path / "out")]
    assert main(["quantize", *arguments, "--skip", "int8", "--prepare"]) == 0
    said = capsys.readouterr().err
    assert "broken.png" in said
    assert "text.jpg" in said
    (folder / "good.png").unlink()
    with pytest.raises(ConversionError, match="2 tried, such as .*broken.png"):
        calibrate(folder, tmp_path / "out")
    assert main(["quantize", *arguments]) == 1


def test_int8_answers_like_float(compared: Comparison) -> None:
    assert compared.held_out
    assert compared.pictures == (PER_CLASS - 2) * len(LABELS)
    assert compared.same_top1 >= 0.9 * compared.pictures
    assert 0 < compared.score_drift < 0.1
    assert compared.skipped == ()


def test_int8_is_smaller(compared: Comparison, int8: Path) -> None:
    assert compared.int8_bytes == int8.stat().st_size
    assert compared.float_bytes == DEMO.stat().st_size > 2 * compared.int8_bytes
    assert min(compared.float_ms, compared.int8_ms) > 0


def test_int8_is_a_model_like_the_float_one(int8: Path, signs: Path) -> None:
    assert int8.name == "demo_int8.onnx"
    backend = OnnxBackend(int8)
    assert backend.labels == LABELS
    weights = onnx.load(int8).graph.initializer
    kernels = [weight for weight in weights if len(weight.dims) == 4]
    assert kernels
    assert {weight.data_type for weight in kernels} == {onnx.TensorProto.INT8}
    slot = backend.open_slot()
    to_nv12(read_image(signs / "stop" / "0.png"), slot.nv12)
    assert LABELS[int(slot.infer().argmax())] == "stop"


def test_compares_on_the_calibration_where_nothing_is_left(
    signs: Path, int8: Path, tmp_path: Path
) -> None:
    made = calibrate(signs / "stop", tmp_path)
    compared = compare_precisions(DEMO, int8, made)
    assert not compared.held_out
    assert compared.pictures == PER_CLASS


def test_held_out_pictures_may_be_broken(signs: Path, int8: Path, tmp_path: Path) -> None:
    for number in range(4):
        content = (signs / "stop" / f"{number}.png").read_bytes()
        (tmp_path / f"{number}.png").write_bytes(content[: 300 if number == 1 else None])
    made = calibrate(tmp_path, tmp_path / "out", samples=2)
    compared = compare_precisions(DEMO, int8, made)
    assert (compared.pictures, len(compared.skipped)) == (1, 1)
    (tmp_path / "3.png").write_text("no picture")
    with pytest.raises(ConversionError, match=r"1\.png"):
        compare_precisions(DEMO, int8, made)


def test_other_families_are_called_as_in_the_zoo(store: Path, signs: Path, tmp_path: Path) -> None:
    (store / MODELS["repvit_m0_9"].file_name("onnx")).write_bytes(DEMO.read_bytes())
    out = tmp_path / "out"
    options = ["--calibration", str(signs), "--samples", "5", "--out", str(out)]
    assert main(["quantize", "repvit_m0_9", *options, "--skip", "int8", "--prepare"]) == 0
    config = yaml.safe_load((out / "RepViT_m0_9.yaml").read_text())
    wanted = MODELS["repvit_m0_9"].file_name("bin").removesuffix(".bin")
    assert config["model_parameters"]["output_model_file_prefix"] == wanted


@pytest.mark.parametrize("resize", ["auto", "crop"])
def test_pictures_are_fitted_as_the_model_fits_them(
    resize: str, store: Path, signs: Path, tmp_path: Path, capsys: Any
) -> None:
    """By the record of the catalogue, under which RepViT is cropped to 95 %; the files made keep it."""
    (store / MODELS["repvit_m0_9"].file_name("onnx")).write_bytes(DEMO.read_bytes())
    options = ["--samples", "17", "--resize", resize, "--prepare", "--json"]
    arguments = ["--calibration", str(signs), "--out", str(tmp_path), *options]
    assert main(["quantize", "repvit_m0_9", *arguments]) == 0
    calibration = json.loads(capsys.readouterr().out)["calibration"]
    fit = Fit("stretch" if resize == "auto" else "crop", 0.95)
    assert (calibration["resize"], calibration["crop_share"]) == fit
    picture = signs / sorted(LABELS)[0] / "0.png"
    tensor = np.fromfile(sorted(Path(calibration["folder"]).iterdir())[0], np.float32)
    assert (tensor.reshape(3, 224, 224) == see(picture, 224, 224, fit=fit)).all()
    assert (see(picture, 224, 224, fit=fit) != see(picture, 224, 224, fit=Fit("crop"))).any()
    for name in ("repvit_m0_9.onnx", "repvit_m0_9_int8.onnx"):
        with repghost_ros.open_model(tmp_path / name) as model:
            assert model.fit == fit


def test_nodes_at_16_bits_are_told_to_the_toolchain(signs: Path, tmp_path: Path) -> None:
    job = prepare(DEMO, "demo", calibrate(signs, tmp_path, samples=5), tmp_path, int16=("a", "b"))
    nodes = yaml.safe_load(job.yaml.read_text())["model_parameters"]["node_info"]
    assert nodes.keys() == {"a", "b"}
    assert nodes["a"] == {"ON": "BPU", "InputType": "int16", "OutputType": "int16"}


@pytest.mark.parametrize(
    ("color_range", "toolchains"), [("full", "regular"), ("limited", "bt601_video")]
)
def test_yaml_for_the_toolchain(
    color_range: ColorRange, toolchains: str, store: Path, signs: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    options = ["--out", str(out), "--samples", "5", "--color-range", color_range]
    code = main(
        ["quantize", "150", "--calibration", str(signs), *options, "--skip", "int8", "--prepare"]
    )
    assert code == 0
    command = "hb_mapper makertbin --config RepGhost_150.yaml --model-type onnx"
    assert f"cd {out} && {command}" in capsys.readouterr().out
    config = yaml.safe_load((out / "RepGhost_150.yaml").read_text())
    inputs = config["input_parameters"]
    assert inputs.pop("input_space_and_range") == toolchains
    assert numbers(inputs.pop("mean_value")) == pytest.approx(IMAGENET.mean)
    assert numbers(inputs.pop("scale_value")) == pytest.approx(IMAGENET.scale)
    prefix = MODELS["150"].file_name("bin").removesuffix(".bin")
    assert config == {
        "model_parameters": {
            "onnx_model": "./repghostnet_150.onnx",
            "march": "bayes-e",
            "layer_out_dump": False,
            "working_dir": prefix,
            "output_model_file_prefix": prefix,
        },
        "input_parameters": {
            "input_name": "",
            "input_type_rt": "nv12",
            "input_type_train": "rgb",
            "input_layout_train": "NCHW",
            "input_shape": "",
            "norm_type": "data_mean_and_scale",
        },
        "calibration_parameters": {
            "cal_data_dir": "./calibration_data_rgb_f32",
            "cal_data_type": "float32",
            "calibration_type": "default",
        },
        "compiler_parameters": {"compile_mode": "latency", "debug": False, "optimize_level": "O3"},
    }
    copy = onnx.load(out / "repghostnet_150.onnx")
    assert copy.graph == onnx.load(DEMO).graph
    assert {entry.key: entry.value for entry in copy.metadata_props}["crop_share"] == "0.875"
    assert len(list((out / "calibration_data_rgb_f32").iterdir())) == 5
    assert not list(out.glob("*_int8.onnx"))


@pytest.mark.usefixtures("mapper")
@pytest.mark.parametrize(
    ("fault", "said"),
    [("fails", ("exit code 3", "nobody knows")), ("makes nothing", ("it made no",))],
)
def test_says_why_the_toolchain_failed(
    fault: str,
    said: tuple[str, ...],
    store: Path,
    signs: Path,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAPPER_FAULT", fault)
    arguments = ["--calibration", str(signs), "--out", str(tmp_path), "--samples", "3"]
    options = ["--methods", "max", "--labels", str(share() / "labels" / "demo.txt")]
    assert main(["quantize", "150", *arguments, *options, "--skip", "int8"]) == 1
    error = capsys.readouterr().err
    assert all(words in error for words in (*said, "hb_mapper.log", "Start to calibrate"))
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.usefixtures("mapper")
def test_an_interrupt_leaves_no_process_and_no_bin(
    signs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPPER_FAULT", "hangs")
    out = tmp_path / "out"
    children = out / "tried" / "max" / "children"

    def interrupt() -> None:
        while not (children.is_file() and children.read_text().count(" ")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    arguments = ["--calibration", str(signs), "--out", str(out), "--samples", "3", "--skip", "int8"]
    assert main(["quantize", "demo", *arguments, "--methods", "max"]) == INTERRUPTED
    watcher.join()
    for pid in children.read_text().split():
        assert (
            not Path("/proc", pid).exists() or "zombie" in Path("/proc", pid, "status").read_text()
        )
    assert not list(out.rglob("*.bin"))


def test_int8_alone_in_the_default_folder(
    signs: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--calibration", str(signs), "--samples", "17", "--skip", "vendor"]
    assert main(["quantize", "demo", *arguments, "--color-range", "limited"]) == 0
    made = {path.name for path in (tmp_path / "quantized_demo").iterdir()}
    assert made == {"demo_int8.onnx", "calibration_data_rgb_f32"}
    said = capsys.readouterr().out
    assert "held-out" in said
    assert "--against quantized_demo/demo_int8.onnx --color-range limited" in said


def test_own_models_of_any_size_where_they_are(signs: Path, tmp_path: Path) -> None:
    out = tmp_path
    own = small_model(out / "own.onnx")
    arguments = ["--calibration", str(signs), "--out", str(out), "--prepare"]
    assert main(["quantize", str(own), *arguments]) == 0
    assert {tensor.stat().st_size for tensor in out.glob("*/*.rgb")} == {96 * 64 * 3 * 4}
    config = yaml.safe_load((out / "own.yaml").read_text())
    assert config["model_parameters"]["output_model_file_prefix"] == "own_96x64_nv12"
    backend = OnnxBackend(out / "own_int8.onnx")
    assert (backend.width, backend.height) == (96, 64)


def test_the_toolchains_opset(signs: Path, tmp_path: Path, capsys: Any) -> None:
    own = small_model(tmp_path / "own.onnx", opset=13)
    arguments = ["--calibration", str(signs), "--out", str(tmp_path / "out"), "--samples", "5"]
    assert main(["quantize", str(own), *arguments, "--skip", "vendor"]) == 0
    assert main(["quantize", str(own), *arguments, "--skip", "int8"]) == 1
    assert "opset 13" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:All-NaN axis:RuntimeWarning")
def test_what_cannot_be_quantized(signs: Path, tmp_path: Path, capsys: Any) -> None:
    broken = small_model(tmp_path / "nan.onnx", weight=np.nan)
    arguments = ["--calibration", str(signs), "--out", str(tmp_path / "out"), "--samples", "5"]
    assert main(["quantize", str(broken), *arguments, "--skip", "vendor"]) == 1
    assert "cannot be quantized" in capsys.readouterr().err
    folded = tmp_path / "folded.onnx"
    assert main(["export", "demo", "--fold-preprocess", "--out", str(folded)]) == 0
    assert main(["quantize", str(folded), *arguments]) == 1
    assert "takes NV12" in capsys.readouterr().err


def test_without_the_toolchain_the_rest_is_written(
    signs: Path, tmp_path: Path, capsys: Any
) -> None:
    own = small_model(tmp_path / "own.onnx")
    out = tmp_path / "out"
    arguments = ["--calibration", str(signs), "--out", str(out), "--samples", "5"]
    assert main(["quantize", str(own), *arguments]) == 1
    said = capsys.readouterr()
    assert "no .bin was made: there is none" in said.err
    assert "hb_mapper makertbin --config own.yaml" in said.out
    assert {"own.yaml", "own.onnx", "own_int8.onnx"} <= {path.name for path in out.iterdir()}
    assert main(["quantize", str(own), *arguments, "--prepare"]) == 0


def test_other_preprocessing(signs: Path, tmp_path: Path, capsys: Any) -> None:
    own = small_model(tmp_path / "own.onnx")
    out = tmp_path / "out"
    arguments = ["--calibration", str(signs), "--samples", "5", "--prepare"]
    wanted = ["--mean", "100,120,140", "--scale", "0.0078125", "--channel-order", "bgr"]
    assert main(["quantize", str(own), *arguments, *wanted, "--out", str(out)]) == 0
    inputs = yaml.safe_load((out / "own.yaml").read_text())["input_parameters"]
    assert inputs["input_type_train"] == "bgr"
    assert numbers(inputs["mean_value"]) == [140, 120, 100]  # as the channels are
    assert numbers(inputs["scale_value"]) == [0.0078125] * 3
    folder = out / "calibration_data_bgr_f32"
    bgr = np.fromfile(sorted(folder.iterdir())[0], np.float32).reshape(3, 64, 96)
    made = calibrate(signs, tmp_path / "rgb", height=64, width=96, samples=5)
    assert (bgr[::-1] == made.read(made.tensors[0])).all()
    # All that was made says what it wants.
    image = cv2.imread(str(made.pictures[0]))
    rgb = cv2.resize(image, (96, 64))[..., ::-1]
    for path in (out / "own.onnx", out / "own_int8.onnx"):
        backend = OnnxBackend(path)
        filled = np.empty((1, 3, 64, 96), np.float32)
        backend.normalize(rgb, filled)
        wanted_rgb = (rgb - np.array([100, 120, 140])) * 0.0078125
        assert np.allclose(filled[0].transpose(1, 2, 0)[..., ::-1], wanted_rgb, atol=1e-5)
    assert OnnxBackend(own).is_bgr is False
    assert main(["quantize", str(own), *arguments, *wanted, "--out", str(tmp_path)]) == 2
    assert "must not be the folder" in capsys.readouterr().err


def reshaped(source: Path, path: Path, *sides: int | str) -> Path:
    model = onnx.load(source)
    for place, side in enumerate(sides, start=2):
        dimension = model.graph.input[0].type.tensor_type.shape.dim[place]
        if isinstance(side, int):
            dimension.dim_value = side
        else:
            dimension.dim_param = side
    onnx.save(model, path)
    return path


def test_what_the_toolchain_cannot_take_is_refused_at_once(
    int8: Path, signs: Path, tmp_path: Path, capsys: Any
) -> None:
    own = small_model(tmp_path / "own.onnx")
    dynamic = reshaped(own, tmp_path / "dynamic.onnx", "height", "width")
    odd = reshaped(own, tmp_path / "odd.onnx", 65, 97)
    out = tmp_path / "out"
    for model, said in (
        (int8, "is already quantized: give the float model"),
        (dynamic, "has no fixed size: [1, 3, 'height', 'width']"),
        (odd, "97x65 pictures, and NV12 has even sides"),
        (signs / "stop" / "0.onnx", "does not exist"),
    ):
        arguments = ["quantize", str(model), "--calibration", str(signs), "--out", str(out)]
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not out.exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "nowhere"):
        assert main(["quantize", str(own), "--calibration", str(folder), "--out", str(out)]) == 1
        assert str(folder) in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
@pytest.mark.usefixtures("mapper")
def test_a_full_disk_is_said(
    signs: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPPER_FAULT", "makes nothing")
    tried = tmp_path / "tried" / "max"
    tried.mkdir(parents=True)
    (tried / "hb_mapper.log").symlink_to("/dev/full")
    arguments = ["--calibration", str(signs), "--out", str(tmp_path), "--samples", "3"]
    assert main(["quantize", "demo", *arguments, "--methods", "max", "--skip", "int8"]) == 1
    assert f"the disk of '{tmp_path}' is full" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.bin"))


def test_a_size_that_is_not_there(store: Path, signs: Path, capsys: Any) -> None:
    assert main(["quantize", "100", "--calibration", str(signs)]) == 1
    assert "repghost export 100" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["120"], ["model.bin"]])
def test_wrong_command_lines(arguments: list[str], signs: Path) -> None:
    assert main(["quantize", *arguments, "--calibration", str(signs)]) == 2
