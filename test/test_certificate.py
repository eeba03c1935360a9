# SPDX-License-Identifier: Apache-2.0
"""The vendor's real compiler and simulator of the BPU: `make test-toolchain`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.networks import beyond_eight_bits, ending_in, split_by_softmax
from helpers.pictures import sign_folder
from helpers.weights import scaled_apart

from repghost_ros import open_model
from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.sim import CompiledBackend, QuantizedBackend
from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.cli import main
from repghost_ros.convert import certificate
from repghost_ros.convert.calibration import calibrate
from repghost_ros.convert.compilation import METHODS, compile_bin, prepare
from repghost_ros.errors import BackendError, DependencyError
from repghost_ros.graphs.fusing import is_fused
from repghost_ros.paths import share
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.vision.frame import from_array
from repghost_ros.vision.nv12 import ColorRange, to_nv12
from repghost_ros.zoo.model_file import read_model_file

onnx = pytest.importorskip("onnx")
try:
    find_toolchain()
except DependencyError as missing:
    pytest.skip(str(missing), allow_module_level=True)
pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(600)]

DEMO = share() / "models" / "demo.onnx"
DEMO_BIN = share() / "models" / "demo_224x224_nv12.bin"
DEMO_QUANTIZED = Path(__file__).parent / "data" / "demo_224x224_nv12_quantized_model.onnx"
PER_CLASS = 4


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sign_folder(tmp_path_factory.mktemp("signs"), 8, PER_CLASS)


def frames(count: int, seed: int, color_range: ColorRange = "full") -> list[np.ndarray]:
    """NV12 of signs; the n-th shows LABELS[n % len(LABELS)]."""
    made = []
    for number in range(count):
        picture = render(number % len(LABELS), np.random.default_rng([seed, number]), 224, 224)
        nv12 = np.empty((336, 224), np.uint8)
        to_nv12(from_array(picture), nv12, color_range=color_range)
        made.append(nv12)
    return made


def answer(backend: Any, nv12s: list[np.ndarray]) -> np.ndarray:
    """float32 (frames, classes)."""
    slot = backend.open_slot()
    answers = []
    for nv12 in nv12s:
        slot.nv12[...] = nv12
        answers.append(slot.infer())
    slot.close()
    backend.close()
    return np.array(answers)


def with_branches(path: Path) -> Path:
    """Write the demo model with unfused cheap operations: a part of them is a norm of its own."""
    model = onnx.load(DEMO)
    graph, helper, arrays = model.graph, onnx.helper, onnx.numpy_helper
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Conv" or "cheap_operation" not in node.name:
            continue
        kernel = weights[node.input[1]]
        values = arrays.to_array(kernel).copy()
        values[:, :, 1, 1] -= 0.5
        kernel.CopyFrom(arrays.from_array(values, kernel.name))
        names = [f"{node.name}/{part}" for part in ("gain", "zero", "mean", "one")]
        for name, value in zip(names, (0.5, 0, 0, 1), strict=True):
            full = np.full(len(values), value, np.float32)
            graph.initializer.append(arrays.from_array(full, name))
        out, ends = node.output[0], [f"{node.name}/{part}" for part in ("conv", "norm")]
        node.output[0] = ends[0]
        norm = [node.input[0], *names]
        nodes.append(helper.make_node("BatchNormalization", norm, ends[1:], epsilon=0.0))
        nodes.append(helper.make_node("Add", ends, [out]))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def certified(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run `repghost quantize` on the demo model with branches; return its JSON."""
    out = tmp_path_factory.mktemp("certified")
    model = with_branches(out / "branched.onnx")
    assert not is_fused(onnx.load(model))
    arguments = ["--calibration", str(signs), "--samples", "34", "--out", str(out / "made")]
    assert main(["quantize", str(model), *arguments, "--methods", "max", "--skip", "int8"]) == 0
    return json.loads((out / "made" / "certificate.json").read_text())


def test_the_certificate_says_what_was_found(certified: dict[str, Any]) -> None:
    assert certified["passed"]
    assert certified["pictures"] == (PER_CLASS - 2) * len(LABELS)
    assert certified["agreement"] >= 0.97
    assert certified["float_top1"] >= 0.97
    assert certified["int8_top1"] >= 0.97
    assert {trial["name"] for trial in certified["trials"]} == {"max", "max, with branches"}
    assert certified["fused"]
    assert "fused is the fastest that keeps enough" in certified["why"]
    assert certified["simulated"] == 4
    assert certified["simulator_drift"] < 1e-6
    # The compiler is deterministic: 337 us, 2966 FPS, 1.34 MB when this was written.
    assert 300 < certified["predicted"]["latency_us"] < 380
    assert certified["predicted"]["fps"] == pytest.approx(
        1e6 / certified["predicted"]["latency_us"], rel=0.01
    )
    assert len(certified["worst_layers"]) == 10
    assert 1_000_000 < certified["bytes"] == Path(certified["makes"]).stat().st_size
    page = Path(certified["makes"]).with_name("report.html").read_text()
    assert "Passed." in page
    assert "src=" not in page.replace('src="data:', "")


@pytest.mark.parametrize(
    ("operator", "activation"), [("Softmax", "softmax"), ("Sigmoid", "sigmoid")]
)
def test_a_last_activation_is_applied_to_the_compiled_models_outputs(
    operator: str, activation: str, signs: Path, tmp_path: Path, capsys: Any
) -> None:
    """It is cut off before compiling, and the .bin says which one it was."""
    model = ending_in(tmp_path / "end.onnx", operator)
    out = ["--calibration", str(signs), "--samples", "34", "--out", str(tmp_path / "made")]
    assert main(["quantize", str(model), *out, "--methods", "max", "--skip", "int8"]) == 0
    made = json.loads((tmp_path / "made" / "certificate.json").read_text())
    assert (made["passed"], made["activation"], made["simulated"]) == (True, activation, 4)
    assert made["cpu_operators"] == []
    labels = str(share() / "labels" / "demo.txt")
    picture = render("stop", np.random.default_rng(3), 320, 240)
    scores = []
    for path, backend in ((model, "onnx"), (made["makes"], "sim"), (made["quantized"], "sim")):
        with open_model(model_path=str(path), labels_path=labels, backend=backend) as opened:
            scores.append({r.class_id: r.score for r in opened.classify(picture)})
    for each in scores[1:]:
        assert each["stop"] == pytest.approx(scores[0]["stop"], abs=0.05)


def test_the_simulator_and_the_executor_answer_alike(certified: dict[str, Any]) -> None:
    shown = frames(8, seed=31)
    compiled = answer(CompiledBackend(read_model_file(Path(certified["makes"]))), shown)
    quantized = answer(QuantizedBackend(Path(certified["quantized"])), shown)
    assert np.abs(compiled - quantized).max() <= 1e-6 * np.abs(quantized).max()
    of_float = answer(OnnxBackend(DEMO), shown)
    assert (compiled.argmax(1) == of_float.argmax(1)).all()
    assert (compiled != of_float).any()


def test_the_shipped_demo_reads_signs_as_a_board_would() -> None:
    model = read_model_file(DEMO_BIN).for_simulation()
    assert (model.width, model.height, model.classes, model.batch) == (224, 224, 17, 1)
    assert model.settings["INPUT_SPACE_AND_RANGE"] == "regular"
    shown = frames(2 * len(LABELS), seed=32)
    compiled = answer(CompiledBackend(read_model_file(DEMO_BIN)), shown)
    truth = np.arange(len(shown)) % len(LABELS)
    assert (compiled.argmax(1) == truth).mean() >= 0.97
    quantized = answer(QuantizedBackend(DEMO_QUANTIZED), shown)
    assert np.abs(compiled - quantized).max() <= 1e-6 * np.abs(quantized).max()


def test_the_simulator_serves_the_command(signs: Path, tmp_path: Path, capsys: Any) -> None:
    few = tmp_path / "few"
    for label in LABELS[:3]:
        (few / label).mkdir(parents=True)
        (few / label / "0.png").write_bytes((signs / label / "0.png").read_bytes())
    labels = ["--labels", str(share() / "labels" / "demo.txt")]
    models = ["--model", str(DEMO_BIN), "--backend", "sim", "--against", str(DEMO)]
    assert main(["eval", str(few), *models, *labels, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["top1"] for each in told["results"]] == [1.0, 1.0]
    assert "simulator" in told["results"][0]["backend"]
    assert main(["classify", str(few), "--model", "demo", "--backend", "sim", "--json"]) == 0
    with pytest.raises(BackendError, match="cannot be simulated"):
        QuantizedBackend(DEMO)


def test_the_limited_range(signs: Path, tmp_path: Path) -> None:
    made = calibrate(signs, tmp_path, samples=34, color_range="limited")
    job = prepare(DEMO, "limited", made, tmp_path, method=METHODS["max"])
    compiled = compile_bin(job, find_toolchain())
    assert (
        read_model_file(compiled).for_simulation().settings["INPUT_SPACE_AND_RANGE"]
        == "bt601_video"
    )
    ranges: tuple[ColorRange, ...] = ("limited", "full")
    wanted = answer(OnnxBackend(DEMO, BackendOptions()), frames(6, seed=33))
    file = read_model_file(compiled)
    errors = {
        each: np.abs(answer(CompiledBackend(file), frames(6, 33, each)) - wanted).mean()
        for each in ranges
    }
    assert errors["limited"] < 0.5 * errors["full"]


@pytest.fixture
def unoptimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles in seconds; the answers are the same."""
    monkeypatch.setattr(certificate, "prepare", partial(prepare, optimize_level="O0"))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Of networks with three classes that are not those of the folders."""
    path = tmp_path / "labels.txt"
    path.write_text("a\nb\nc\n")
    return path


def quantize(model: Path | str, pictures: Path, out: Path, *options: str) -> dict[str, Any]:
    """Run `repghost quantize` with one method, and read the certificate."""
    arguments = ["--calibration", str(pictures), "--out", str(out), "--skip", "int8"]
    code = main(["quantize", str(model), *arguments, "--methods", "max", *options])
    told = json.loads((out / "certificate.json").read_text())
    assert code == (0 if told["passed"] else 1)
    return told


@pytest.mark.usefixtures("unoptimized")
def test_four_frames_in_one_inference(signs: Path, tmp_path: Path) -> None:
    """Four different pictures at once, each answered as the quantized model answers it alone."""
    told = quantize("demo", signs, tmp_path, "--batch", "4", "--samples", "34")
    assert told["passed"]
    assert told["batch"] == told["simulated"] == 4
    assert told["simulator_drift"] < 1e-6
    assert Path(told["makes"]).name == "demo_224x224_nv12_batch4.bin"
    assert told["predicted"]["fps"] == pytest.approx(
        4e6 / told["predicted"]["latency_us"], rel=0.01
    )
    backend = CompiledBackend(read_model_file(Path(told["makes"])))
    assert backend.batch == 4
    slot = backend.open_slot()
    shown = frames(4, seed=34)
    for place, nv12 in zip(slot.inputs, shown, strict=True):
        place[...] = nv12
    together = slot.infer_batch(4)
    slot.close()
    (alone,) = (tmp_path / "tried").rglob("*_quantized_model.onnx")
    expected = answer(QuantizedBackend(alone), shown)
    assert np.abs(together - expected).max() <= 1e-6 * np.abs(expected).max()
    assert together.argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("unoptimized")
def test_a_model_that_eight_bits_destroy_is_prepared_for_them(signs: Path, tmp_path: Path) -> None:
    """The demo model, its channels four orders of magnitude apart: guessing as it is."""
    model = tmp_path / "apart.onnx"
    onnx.save(scaled_apart(onnx.load(DEMO)), model)
    told = quantize(model, signs, tmp_path / "out", "--samples", "34")
    top1 = {trial["name"]: trial["top1"] for trial in told["trials"]}
    assert told["float_top1"] >= 0.97
    assert top1["max"] < 0.2
    assert top1["max, equalized"] >= 0.9
    assert told["int8_top1"] >= told["float_top1"] - 0.03
    assert told["remedy"].startswith("equalized")
    assert told["passed"]
    assert "prepared for eight bits" in told["why"]


@pytest.mark.usefixtures("unoptimized")
def test_what_the_cpu_does_is_named_with_its_time(
    signs: Path, tmp_path: Path, labels: Path, capsys: Any
) -> None:
    """It splits the BPU's work; the prediction is of both parts."""
    model, work = split_by_softmax(tmp_path / "split.onnx"), tmp_path / "out"
    options = ("--samples", "17", "--no-int16", "--labels", str(labels), "--min-agreement", "0")
    told = quantize(model, signs, work, *options)
    assert [each["operator"] for each in told["cpu_operators"]] == ["Softmax"]
    assert told["cpu_operators"][0]["pc_ms"] > 0
    said = "on the CPU, and not in the prediction: 1 operator, Softmax 0."
    assert said in capsys.readouterr().out
    assert said in (work / "report.html").read_text()
    parts = [
        json.loads(path.read_text())["summary"]["latency (us)"]
        for path in (work / "split_96x64_nv12").glob("*_subgraph_*.json")
    ]
    assert len(parts) == 2
    assert told["predicted"]["latency_us"] == pytest.approx(sum(parts))


@pytest.mark.usefixtures("unoptimized")
def test_layers_are_kept_at_int16_where_eight_bits_lose_too_much(
    signs: Path, tmp_path: Path, labels: Path, capsys: Any
) -> None:
    """Where preparing the weights does not help, either; the price is said."""
    model = beyond_eight_bits(tmp_path / "wide.onnx")
    options = ("--samples", "17", "--labels", str(labels), "--max-drop", "0.05")
    told = quantize(model, signs, tmp_path / "out", *options, "--min-agreement", "0.95")
    agreement = {trial["name"]: trial["agreement"] for trial in told["trials"]}
    assert max(agreement[name] for name in agreement if "int16" not in name) < 0.5
    assert told["passed"]
    assert told["int16"]
    assert told["simulated"] == 4
    assert told["simulator_drift"] < 1e-6
    assert "with nodes at int16 is the fastest that keeps enough" in told["why"]
    price = f"keeping {len(told['int16'])} nodes at int16 costs "
    assert told["int16_price"].startswith(price)
    assert price in capsys.readouterr().out


@pytest.mark.usefixtures("unoptimized")
def test_a_destroyed_model_is_not_certified(signs: Path, tmp_path: Path, capsys: Any) -> None:
    """Calibrated with one black picture, every activation is cut off."""
    pictures = tmp_path / "pictures"
    for label in LABELS[:6]:
        (pictures / label).mkdir(parents=True)
        (pictures / label / "1.png").write_bytes((signs / label / "1.png").read_bytes())
    cv2.imwrite(str(pictures / LABELS[0] / "0.png"), np.zeros((256, 256, 3), np.uint8))
    first = sorted(pictures.rglob("*.png"))[0]
    cv2.imwrite(str(first), np.zeros((256, 256, 3), np.uint8))
    arguments = ["--calibration", str(pictures), "--samples", "1", "--out", str(tmp_path / "out")]
    options = ["--methods", "max", "--skip", "int8"]
    assert main(["quantize", "demo", *arguments, *options]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert "Conv" in said
    assert (tmp_path / "out" / "demo_224x224_nv12.bin").is_file()
    assert "Failed." in (tmp_path / "out" / "report.html").read_text()


def test_an_interrupt_ends_the_compiler(signs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "repghost_ros.cli", "quantize", "demo", "--skip", "int8"]
    options = ["--methods", "max", "--samples", "17", "--held-out", "1", "--out", "out"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [*command, "--calibration", str(signs), *options],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(share())},
        stderr=subprocess.PIPE,
        text=True,
    )

    def compilers() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if str(scratch) in words:
                found.append(words)
        return found

    while not any("hbdk-cc" in words for words in compilers()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not compilers()
    assert not list(scratch.rglob("*"))
    assert not list((tmp_path / "out").rglob("*.bin"))
