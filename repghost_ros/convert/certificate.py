# SPDX-License-Identifier: Apache-2.0
"""A .bin and its certificate: the best of several calibrations, measured, simulated, predicted.

Each way to calibrate is quantized and answers pictures that it was not calibrated with, in the vendor's
executor, which computes what the board does. The best one is compiled; the compiled model then answers
some of the pictures in the vendor's simulator of the BPU and must not differ.

A model with branches is tried with and without them: without, it is faster, but may quantize worse.
Where too much is lost, the weights are prepared for eight bits (see `_remedied`), which costs no speed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repghost_ros.backends.base import Activation, BackendOptions
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.sim import QuantizedBackend, simulate
from repghost_ros.backends.toolchain import Toolchain
from repghost_ros.convert.calibration import Calibration, spread
from repghost_ros.convert.compilation import (
    Job,
    Method,
    Prediction,
    Progress,
    Similarity,
    compile_bin,
    prediction,
    prepare,
    quantize_only,
    similarities,
)
from repghost_ros.convert.quantization import images, open_float
from repghost_ros.engine.activation import activation_of
from repghost_ros.engine.model import Answered, Model
from repghost_ros.engine.results import decision, probabilities
from repghost_ros.errors import ConversionError, FrameError, SourceError
from repghost_ros.graphs.bias_correction import correct_biases
from repghost_ros.graphs.equalization import equalize
from repghost_ros.graphs.fusing import fuse_file, is_fused
from repghost_ros.graphs.graph import load, save
from repghost_ros.runs.batch import classify_each
from repghost_ros.runs.samples import Classes, Sample, find_samples
from repghost_ros.sources.pictures import read_image
from repghost_ros.vision.nv12 import ColorRange, to_nv12
from repghost_ros.vision.view import View
from repghost_ros.zoo.binary import read_for_simulation

HELD_OUT = 200
"""Pictures that the calibrations are compared on, at most."""
MAX_DROP = 0.005
"""Accuracy that a fused model may lose against float and still be preferred, 0.0 to 1.0."""
SIMULATED = 4
"""Pictures that the compiled model answers in the simulator."""
TOLERANCE = 1e-5
"""Largest difference of a logit between simulator and executor, relative to the largest logit."""

Pictures = Callable[[Iterable[Path], int], Iterable[Path]]
"""Wraps the pictures that are worked through; told how many."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to the readable held-out pictures, in order."""

    samples: tuple[Sample, ...]
    logits: np.ndarray
    """float32 (pictures, classes)."""
    activation: Activation = "softmax"
    """How they become scores."""

    @property
    def scores(self) -> np.ndarray:
        """Float64 (pictures, classes): probabilities."""
        return np.array([probabilities(row, self.activation) for row in self.logits])

    @property
    def decisions(self) -> np.ndarray:
        """Int (pictures,): best classes; of one class, whether its score is at least 0.5."""
        return np.array([decision(row) for row in self.scores])

    @property
    def top1(self) -> np.ndarray:
        """Int (pictures,): each picture's best class."""
        best: np.ndarray = self.logits.argmax(axis=1)
        return best

    def accuracy(self) -> float | None:
        """Accuracy on labeled pictures, 0.0 to 1.0; None if there are none, or one class only."""
        labelled = [
            (int(best), sample.truth)
            for best, sample in zip(self.top1, self.samples, strict=True)
            if sample.truth is not None and self.logits.shape[1] > 1
        ]
        return sum(best == truth for best, truth in labelled) / len(labelled) if labelled else None


@dataclass(frozen=True)
class Variant:
    """A float model that computes what the given one does, to be quantized in its place."""

    model: Path
    fused: bool
    """Whether its branches are fused; so it is, too, where it never had any."""
    remedy: str = ""
    """How its weights were prepared for eight bits, in words."""


@dataclass(frozen=True)
class Trial:
    """One calibration, measured."""

    variant: Variant
    method: Method
    answers: Answers
    agreement: float
    """Share of the pictures with float's best class, 0.0 to 1.0."""
    drift: float
    """Mean change of the probability of float's best class."""

    @property
    def name(self) -> str:
        """The method and the variant."""
        return _name(self.method, self.variant)


@dataclass(frozen=True)
class Certificate:
    """The findings about a compiled model."""

    bin: Path
    job: Job
    calibration: Calibration
    labels: tuple[str, ...]
    batch: int
    of_float: Answers
    trials: tuple[Trial, ...]
    """The first one was compiled; the others follow, the best first."""
    why: str
    """Why that one."""
    failed: dict[str, str]
    """Calibrations that the toolchain could not do, and why."""
    simulated: int
    """Pictures that the compiled model answered in the simulator, like the quantized model."""
    simulator_drift: float
    """Largest difference of a logit there, relative to the largest logit."""
    predicted: Prediction
    layers: tuple[Similarity, ...]
    """Of the compiled one, the worst first."""
    min_agreement: float

    @property
    def best(self) -> Trial:
        """The trial that was compiled."""
        return self.trials[0]

    @property
    def passed(self) -> bool:
        """Whether the compiled model agrees with the float model often enough."""
        return self.best.agreement >= self.min_agreement

    def changed(self) -> list[int]:
        """Indices of the pictures whose class differs from the float model's."""
        return [
            int(i) for i in np.flatnonzero(self.best.answers.decisions != self.of_float.decisions)
        ]

    def worst_classes(self) -> list[tuple[str, int, int, int]]:
        """Label, pictures, right in float, right in int8; the largest losses first.

        Classes are those of the folders or, if these name none, the float model's answers.
        """
        counts: dict[int, list[int]] = {}
        for number, sample in enumerate(self.of_float.samples):
            float_best = int(self.of_float.top1[number])
            truth = float_best if sample.truth is None else sample.truth
            count = counts.setdefault(truth, [0, 0, 0])
            count[0] += 1
            count[1] += float_best == truth
            count[2] += int(self.best.answers.top1[number]) == truth
        rows = [(self.labels[i], n, right, kept) for i, (n, right, kept) in counts.items()]
        return sorted(rows, key=lambda row: (row[3] - row[2], row[3] / row[1]))


def certify(
    model: Path,
    name: str,
    calibration: Calibration,
    out: Path,
    toolchain: Toolchain,
    pictures: Path,
    labels: Sequence[str],
    methods: Sequence[Method],
    *,
    batch: int = 1,
    held_out: int = HELD_OUT,
    min_agreement: float = 0.97,
    max_drop: float = MAX_DROP,
    progress: Progress = lambda *_: None,
    with_bar: Pictures = lambda items, _: items,
) -> Certificate:
    """Try the methods, compile the best, and verify the result.

    Args:
        model: the float .onnx.
        name: one of the catalogue's sizes, or the name of your own model.
        calibration: made from `pictures` in `out`.
        out: the folder for all files.
        toolchain: the vendor's.
        pictures: the folder; its subfolders may name classes.
        labels: the model's class names.
        methods: tried in this order; the first wins a tie.
        batch: pictures in one inference of the compiled model.
        held_out: maximum number of pictures to compare on.
        min_agreement: see Certificate.passed.
        max_drop: accuracy (agreement, where the pictures have no labels) that a fused model may lose
            against float, 0.0 to 1.0, and still be preferred to one with branches.
        progress: told what the toolchain does.
        with_bar: wraps the pictures that are classified.

    Raises:
        ConversionError: no picture is left, no method works, the compiler fails, or the compiled model
            answers other than the quantized one.
        BackendError: a model cannot be run.

    """
    samples = _held_out(calibration, pictures, labels, held_out)
    backend = OnnxBackend(model, BackendOptions(color_range=calibration.color_range))
    activation = activation_of(model, backend)
    of_float = _answers(
        backend, model, labels, samples, calibration.color_range, with_bar, activation
    )
    if not of_float.samples:
        raise ConversionError(f"none of the {len(samples)} held-out pictures can be read")
    trials: list[Trial] = []
    failed: dict[str, str] = {}

    def attempt(variant: Variant) -> None:
        for method in methods:
            what = _name(method, variant)
            job = prepare(
                variant.model, name, calibration, out / "tried" / _slug(what), method=method
            )
            try:
                quantized = quantize_only(job, toolchain, _named(progress, what))
            except ConversionError as error:
                failed[what] = str(error)
                continue
            answers = _answers(
                QuantizedBackend(quantized),
                quantized,
                labels,
                of_float.samples,
                calibration.color_range,
                with_bar,
                activation,
            )
            trials.append(Trial(variant, method, answers, *_compare(of_float, answers)))

    variants = _variants(model, out)
    for variant in variants:
        attempt(variant)
    if not trials:
        raise ConversionError(next(iter(failed.values())))
    for variant in _remedied(variants[0], calibration, out):
        if any(_drop(t, of_float) <= max_drop for t in trials if t.variant.fused):
            break
        attempt(variant)
    trials.sort(key=_rank)
    best, why = _choose(trials, of_float, max_drop)
    trials.sort(key=lambda trial: trial is not best)
    job = prepare(best.variant.model, name, calibration, out, method=best.method, batch=batch)
    compiled = compile_bin(job, toolchain, _named(progress, f"compiling {best.name}"))
    try:
        simulated, drift = _prove(compiled, best.answers, calibration, toolchain)
    except BaseException:  # an interrupt, too: no .bin without its certificate
        compiled.unlink()
        raise
    return Certificate(
        compiled,
        job,
        calibration,
        tuple(labels),
        batch,
        of_float,
        tuple(trials),
        why,
        failed,
        simulated,
        drift,
        prediction(job),
        tuple(similarities(job)),
        min_agreement,
    )


def _name(method: Method, variant: Variant) -> str:
    branches = "" if variant.fused else "with branches"
    return ", ".join(filter(None, (method.name, branches, variant.remedy)))


def _slug(name: str) -> str:
    """A folder's name."""
    return name.replace(", ", "-").replace(" ", "-")


def _named(progress: Progress, name: str) -> Progress:
    return lambda stage, percent: progress(f"{name}: {stage}", percent)


def _variants(model: Path, out: Path) -> list[Variant]:
    """The model without branches first, and as it is where it has some."""
    if is_fused(load(model)):
        return [Variant(model, True)]
    fused = out / f"{model.stem}_fused.onnx"
    fuse_file(model, fused)
    return [Variant(fused, True), Variant(model, False)]


def _remedied(variant: Variant, calibration: Calibration, out: Path) -> Iterator[Variant]:
    """The variant with its weights prepared for eight bits, by more and more remedies."""
    backend, model = open_float(variant.model), load(variant.model)
    stem = variant.model.stem
    model = equalize(model, images(calibration, backend))
    path = out / f"{stem}_equalized.onnx"
    save(model, path)
    yield Variant(path, variant.fused, "equalized")
    path = out / f"{stem}_corrected.onnx"
    save(correct_biases(model, images(calibration, backend)), path)
    yield Variant(path, variant.fused, "equalized, biases corrected")


def _rank(trial: Trial) -> tuple[float, float, float]:
    """Sort key for trials, the best first."""
    return -trial.agreement, -(trial.answers.accuracy() or 0.0), trial.drift


def _drop(trial: Trial, of_float: Answers) -> float:
    """The share of float's accuracy that a trial loses; of agreement, where the truth is unknown."""
    accuracy = of_float.accuracy()
    return 1 - trial.agreement if accuracy is None else accuracy - (trial.answers.accuracy() or 0.0)


def _choose(trials: Sequence[Trial], of_float: Answers, max_drop: float) -> tuple[Trial, str]:
    """The fastest trial that keeps the accuracy, and why; `trials` is sorted, the best first."""
    enough = sorted(trials, key=lambda trial: _drop(trial, of_float) > max_drop)

    def best(fused: bool, remedied: bool) -> Trial | None:
        return next(
            (t for t in enough if t.variant.fused is fused and bool(t.variant.remedy) is remedied),
            None,
        )

    found = {
        "as it is": best(True, False),
        "prepared for eight bits": best(True, True),
        "with branches": best(False, False),
    }
    known = {name: (trial, _drop(trial, of_float)) for name, trial in found.items() if trial}
    if len(known) == 1:
        return enough[0], "it agrees with float most often, and changes the scores least"
    if "with branches" in known and "as it is" in known:
        known = {"fused" if name == "as it is" else name: value for name, value in known.items()}
    costs = ", ".join(f"{name} {drop:.2%}" for name, (_, drop) in known.items())
    costs = f"of float's accuracy it costs: {costs}"
    # Fewest changes first; those with branches, which are slower, last.
    for name, (trial, drop) in known.items():
        if drop <= max_drop:
            return trial, f"{costs}; {name} is the fastest that keeps it"
    name, (trial, _) = min(known.items(), key=lambda item: item[1][1])
    return trial, f"{costs}; none keeps all but {max_drop:.2%}, {name} loses least"


def _held_out(
    calibration: Calibration, pictures: Path, labels: Sequence[str], count: int
) -> list[Sample]:
    paths = spread(calibration.held_out, count)
    if not paths:
        raise ConversionError(
            f"all pictures in '{pictures}' were calibrated with, none is left to measure on: give "
            "more, or fewer --samples"
        )
    try:
        known = {sample.path: sample for sample in find_samples(pictures, Classes(labels))}
    except SourceError:  # folders that do not name classes
        known = {}
    return [known.get(path, Sample(path, None)) for path in paths]


def _answers(
    backend: OnnxBackend | QuantizedBackend,
    path: Path,
    labels: Sequence[str],
    samples: Sequence[Sample],
    color_range: ColorRange,
    with_bar: Pictures,
    activation: Activation,
) -> Answers:
    with Model(path.name, path, tuple(labels), color_range, backend, activation) as model:
        outcomes = classify_each(
            model, samples, lambda sample: read_image(sample.path), View(resize="crop")
        )
        read, logits = [], []
        shown = with_bar((sample.path for sample in samples), len(samples))
        for _, outcome in zip(shown, outcomes, strict=False):
            if isinstance(outcome, Answered):
                read.append(outcome.request.message)
                logits.append(outcome.logits)
            elif not isinstance(outcome.error, (FrameError, OSError)):
                raise outcome.error
    return Answers(tuple(read), np.array(logits, np.float32), activation)


def _compare(of_float: Answers, answers: Answers) -> tuple[float, float]:
    """Agreement and drift of a Trial."""
    drifts = []
    for mine, theirs in zip(of_float.scores, answers.scores, strict=True):
        best = int(mine.argmax())
        drifts.append(abs(mine[best] - theirs[best]))
    agreement = float((of_float.decisions == answers.decisions).mean())
    return agreement, float(np.mean(drifts))


def _prove(
    compiled: Path, answers: Answers, calibration: Calibration, toolchain: Toolchain
) -> tuple[int, float]:
    """Simulate some pictures; returns how many, and the largest difference.

    Raises:
        ConversionError: it answers other than the quantized model.

    """
    model = read_for_simulation(compiled)
    chosen = spread(range(len(answers.samples)), max(SIMULATED, model.batch))
    worst, count = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="repghost_sim_") as scratch:
        folder = Path(scratch)
        (folder / "model.hbm").write_bytes(model.program)
        for first in range(0, len(chosen), model.batch):
            numbers = chosen[first : first + model.batch]
            # The last batch is padded with its last picture.
            frames = [
                _frame(answers.samples[number].path, calibration)
                for number in (*numbers, *numbers[-1:] * (model.batch - len(numbers)))
            ]
            logits = simulate(toolchain, model, frames, folder)[: len(numbers)]
            expected = answers.logits[numbers]
            worst = max(worst, float(np.abs(logits - expected).max() / np.abs(expected).max()))
            count += len(numbers)
    if not worst <= TOLERANCE:
        raise ConversionError(
            f"'{compiled}' answers other than the quantized model, by {worst:.1e} of the largest "
            "logit: it was deleted"
        )
    return count, worst


def _frame(picture: Path, calibration: Calibration) -> np.ndarray:
    nv12 = np.empty((calibration.height * 3 // 2, calibration.width), np.uint8)
    to_nv12(read_image(picture), nv12, resize="crop", color_range=calibration.color_range)
    return nv12
