# SPDX-License-Identifier: Apache-2.0
"""The report that a board's owner can send: its runtime, the correctness of its answers, its speed.

Nobody who develops this package has a board: what is predicted of it is proved or refuted here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from repghost_ros.backends.libdnn import LibdnnBackend
from repghost_ros.engine.model import Answered, Model, ModelSpec
from repghost_ros.engine.request import Request
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import RepghostError
from repghost_ros.files import read_line, sha256
from repghost_ros.output import whole_file
from repghost_ros.paths import share
from repghost_ros.runs.benchmark import INFERENCE, Timing, measure, published_timings
from repghost_ros.runs.doctor import NOTE, OK, PROBLEM, Finding
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.vision.frame import from_array
from repghost_ros.zoo.catalogue import DEMO_FILES, MODELS
from repghost_ros.zoo.store import ModelStore

THREADS = (1, 2, 4, 8)
CERTIFIED = "demo_certified.npz"
"""In models/, written by tools/certify_demo.py."""
_PREDICTED = "predicted by the vendor's compiler, {}"
_SIGNS = 3  # pictures of each
SEED = 20_000  # of pictures that the model was not trained on
_LEAST_RIGHT = 0.97
_MOST_ERROR = 0.10
"""Of a quantized model's logits, relative to the float model's: the vendor's executor gave 3.5 % on the
right range of colors, and 18.7 % on the wrong one."""
_TOLERANCE = 1e-4
"""Largest difference from a certified logit, relative to the largest: only a scaling may be rounded."""
_CPU = Path("/sys/devices/system/cpu")
_DEVFREQ = Path("/sys/class/devfreq")
_LISTING_S = 20.0  # seconds for ROS to start and tell its topics


@dataclass(frozen=True)
class Certified:
    """The answers of the vendor's simulator of the BPU for the demo model's .bin, bit for bit."""

    nv12: np.ndarray
    """uint8 (signs, height * 3 // 2, width): rendered signs as the model is given them."""
    logits: np.ndarray
    """float32 (signs, classes)."""
    sha256: str
    """Of the .bin, in hexadecimal."""

    @staticmethod
    def read(path: Path) -> Certified:
        """Read the file CERTIFIED."""
        with np.load(path) as file:
            return Certified(file["nv12"], file["logits"], str(file["sha256"]))

    def write(self, path: Path) -> None:
        """Write it.

        Raises:
            OutputError: it cannot be written.

        """
        with whole_file(path) as partial:
            np.savez_compressed(partial, **vars(self))


@dataclass(frozen=True)
class BoardReport:
    """The additional findings of `repghost doctor` on a board."""

    findings: list[Finding]
    timings: list[Timing]
    """Measured here, and published."""


def report(
    surroundings: Iterable[Finding], seconds: float = 1.0, threads: Sequence[int] = THREADS
) -> BoardReport:
    """Try the device out: half a minute a model in the store, and a few seconds for the demo model.

    Args:
        surroundings: further findings, to come first: see `frequencies` and `cameras`.
        seconds: how long each timing takes.
        threads: numbers of them to time.

    """
    findings = list(surroundings)
    timings: list[Timing] = []
    for name, spec in _models():
        try:
            with spec.open() as model:
                findings += [Finding(f"model {name}", OK, _describe(model)), *_properties(model)]
                if name == "demo":
                    findings += [_self_test(model), _certified_answers(model)]
                timings += [
                    replace(measure(model, number, seconds), model=name) for number in threads
                ]
                timings += [*published_timings(name), *_predicted(name)]
        except RepghostError as error:
            findings.append(Finding(f"model {name}", PROBLEM, str(error), "see the message"))
    return BoardReport(findings, timings)


def _predicted(model: str) -> Iterator[Timing]:
    """Yield the time that the BPU alone may take, without the host's share."""
    if model not in MODELS:
        return
    published, predicted = MODELS[model].published, MODELS[model].predicted
    variants = [(f"fused, batch {batch}", batch, us) for batch, us in predicted.fused_us.items()]
    if predicted.exported_us is not None:
        variants.insert(0, ("as exported", 1, predicted.exported_us))
    for variant, batch, us in variants:
        params = published.params_m if published else None
        about = (model, _PREDICTED.format(variant), "BPU", INFERENCE, params)
        yield Timing(*about, 1, us / 1e3, batch=batch, fps=batch * 1e6 / us)


def _models() -> Iterator[tuple[str, ModelSpec]]:
    """Yield the demo model, compiled where the BPU can run it, and the models in the store."""
    compiled = share() / "models" / DEMO_FILES["bin"]
    demo = ModelSpec("demo")
    if compiled.is_file():
        labels = str(share() / "labels" / "demo.txt")
        on_bpu = ModelSpec(model_path=str(compiled), labels_path=labels)
        try:
            on_bpu.check()
            demo = on_bpu
        except RepghostError:
            pass  # no BPU here; the findings about the runtimes say so
    yield "demo", demo
    store = ModelStore()
    for name in MODELS:
        spec = ModelSpec(name)
        try:
            stored = store.path(name, spec.check().format).is_file()
        except RepghostError:
            stored = False
        if stored:
            yield name, spec


def _describe(model: Model) -> str:
    return f"{model.path.name} on {model.runtime}, {model.width}x{model.height}"


def _properties(model: Model) -> Iterator[Finding]:
    """Yield libdnn's properties of a compiled model's input and output."""
    backend = model.backend
    if isinstance(backend, LibdnnBackend):
        for program in backend.programs:
            yield Finding(f"in {model.path.name}", OK, program.describe())


def _self_test(model: Model) -> Finding:
    """Check that rendered road signs get their names, and logits close to the float model's."""
    subject = "self-test"
    float_model = ModelSpec("demo", backend="onnx")
    try:
        reference = float_model.open() if model.path.suffix == ".bin" else None
    except RepghostError:
        reference = None  # without ONNX Runtime the names alone are compared
    right, errors = 0, []
    slot, other = model.open_slot(), reference.open_slot() if reference else None
    try:
        for number, label in enumerate(LABELS * _SIGNS):
            picture = render(label, np.random.default_rng(SEED + number), 320, 240)
            request = Request(picture, from_array, reporting=Reporting(top_k=1))
            (outcome,) = model.run([request], slot)
            if not isinstance(outcome, Answered):
                advice = "repghost classify a picture, and report this"
                return Finding(subject, PROBLEM, f"'{label}': {outcome.error}", advice)
            right += outcome.results[0].class_id == label
            if other is not None:
                other.nv12[...] = slot.nv12
                true = other.infer()
                errors.append(np.abs(outcome.logits - true).mean() / np.abs(true).mean())
    finally:
        slot.close()
        if reference is not None and other is not None:
            other.close()
            reference.close()
    count = len(LABELS) * _SIGNS
    detail = f"{right} of {count} rendered signs classified correctly"
    error = float(np.mean(errors)) if errors else 0.0
    if errors:
        detail += f"; logits {error:.1%} off the float model's"
    if right < _LEAST_RIGHT * count:
        detail += f" (expected {_LEAST_RIGHT:.0%})"
        return Finding(subject, PROBLEM, detail, "report this, with all the lines")
    if error > _MOST_ERROR:
        return Finding(subject, NOTE, f"{detail}, more than eight bits explain ({_MOST_ERROR:.0%})")
    return Finding(subject, OK, detail)


def _certified_answers(model: Model) -> Finding:
    """Check that the BPU computes what the vendor's simulator of it does."""
    subject, path = "certified logits", share() / "models" / CERTIFIED
    certified = Certified.read(path) if path.is_file() else None
    if model.path.suffix != ".bin":
        return Finding(subject, NOTE, "not compared: they are for the compiled demo model")
    if certified is None or certified.sha256 != sha256(model.path):
        return Finding(subject, NOTE, f"not compared: they are not for this '{model.path}'")
    differences = []
    slot = model.open_slot()
    try:
        for nv12, logits in zip(certified.nv12, certified.logits, strict=True):
            slot.nv12[...] = nv12
            differences.append(np.abs(slot.infer() - logits).max() / np.abs(logits).max())
    finally:
        slot.close()
    alike = sum(difference <= _TOLERANCE for difference in differences)
    detail = (
        f"{alike} of {len(differences)} signs answered as the vendor's simulator does; largest "
        f"difference {max(differences):.1e} of the largest logit"
    )
    if alike < len(differences):
        detail += f" (expected {_TOLERANCE:.0e} at most)"
        return Finding(subject, PROBLEM, detail, "report this, with all the lines")
    return Finding(subject, OK, detail)


def frequencies(cpu: Path = _CPU, devfreq: Path = _DEVFREQ) -> Iterator[Finding]:
    """Governor of the CPU and frequency of the BPU, where they can be read."""
    files = sorted(cpu.glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = sorted({governor for file in files if (governor := read_line(file))})
    if governors:
        fast = governors == ["performance"]
        advice = (
            f"for stable timings: echo performance | sudo tee {cpu}/cpu*/cpufreq/scaling_governor"
        )
        yield Finding(
            "CPU governor", OK if fast else NOTE, ", ".join(governors), advice * (not fast)
        )
    else:
        yield Finding("CPU governor", NOTE, "cannot be read")
    devices = [device for device in sorted(devfreq.glob("*")) if "bpu" in device.name.lower()]
    for device in devices:
        frequency = read_line(device / "cur_freq")
        if frequency.isdecimal():
            governor = read_line(device / "governor")
            detail = f"{int(frequency) / 1e6:.0f} MHz {governor}".strip()
            yield Finding(f"BPU {device.name}", OK, detail)
    if not devices:
        yield Finding("BPU frequency", NOTE, "cannot be read")


def cameras() -> Iterator[Finding]:
    """Yield the topics of images that are published now; a process of its own asks ROS."""
    command = [sys.executable, "-m", "repghost_ros.ros.topics"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_LISTING_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("camera topics", NOTE, f"ROS did not answer: {error}")
        return
    lines = listed.stdout.split("\n")
    if listed.returncode:
        said = listed.stderr.strip().rpartition("\n")[2]
        yield Finding("camera topics", NOTE, f"ROS cannot be asked: {said}")
    elif not listed.stdout.strip():
        yield Finding("camera topics", NOTE, "none", "start the camera to have it in the report")
    else:
        yield Finding("camera topics", OK, ", ".join(line for line in lines if line))
