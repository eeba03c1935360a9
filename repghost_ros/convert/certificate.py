# SPDX-License-Identifier: Apache-2.0
"""A .bin and its certificate: the best of several calibrations, measured, simulated, predicted.

Each way to calibrate is quantized and answers pictures that it was not calibrated with, in the vendor's
executor, which computes what the board does. The best one is compiled; the compiled model then answers
some of the pictures in the vendor's simulator of the BPU and must not differ.

A model with branches is tried with and without them: without, it is faster, but may quantize worse.
Where too much is lost, the weights are prepared for eight bits (see `_remedied`), which costs no speed;
where that is not enough, the layers that lose most are kept at 16 bits, which costs some.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from repghost_ros.backends.base import Activation, BackendOptions
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.sim import QuantizedBackend, simulate
from repghost_ros.backends.toolchain import Toolchain
from repghost_ros.convert.calibration import Calibration, WrapPictures, spread
from repghost_ros.convert.compilation import (
    Job,
    Method,
    ShowStage,
    Similarity,
    SpeedEstimate,
    compile_bin,
    prediction,
    prepare,
    quantize_only,
    similarities,
)
from repghost_ros.convert.cpu_operators import CpuOperator, measure_cpu_operators
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
from repghost_ros.zoo.model_file import ModelFile, read_model_file

HELD_OUT = 200
"""Pictures that the calibrations are compared on, at most."""
MAX_DROP = 0.005
"""Accuracy that a fused model may lose against float and still be preferred, 0.0 to 1.0."""
SIMULATED = 4
"""Pictures that the compiled model answers in the simulator."""
TOLERANCE = 1e-5
"""Largest difference of a logit between simulator and executor, relative to the largest logit."""

INT16_NODES = (4, 16)
"""Numbers of the worst layers that are kept at 16 bits, tried in turn if eight lose too much."""
_KINDS = {
    "fused": "fused",
    "prepared": "prepared for eight bits",
    "branches": "with branches",
    "int16": "with nodes at int16",
}
"""Kinds of variants, the fastest first, in words."""


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
        """Probabilities, float64 (pictures, classes)."""
        return np.array([probabilities(row, self.activation) for row in self.logits])

    @property
    def decisions(self) -> np.ndarray:
        """Best classes, int (pictures,); of one class, 1 if its score is at least 0.5."""
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
    """True if its branches are fused, or it never had any."""
    remedy: str = ""
    """The preparation of its weights for eight bits, in words."""
    int16: tuple[str, ...] = ()
    """Names of nodes that are kept at 16 bits."""

    @property
    def kind(self) -> str:
        """Difference from the fused model: `fused`, `prepared`, `branches` or `int16`."""
        if self.int16:
            return "int16"
        return ("prepared" if self.remedy else "fused") if self.fused else "branches"


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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
    """Reason for that choice."""
    failed: dict[str, str]
    """Calibrations that the toolchain could not do, and why."""
    simulated: int
    """Pictures that the compiled model answered in the simulator, like the quantized model."""
    simulator_drift: float
    """Largest difference of a logit there, relative to the largest logit."""
    unsimulated: str
    """Reason that it could not be simulated; empty if it was."""
    cpu_operators: tuple[CpuOperator, ...]
    """Operators that run on the CPU; their time is not in the prediction."""
    predicted: SpeedEstimate
    predicted_int8: SpeedEstimate | None
    """Of the same model without nodes at int16; None if it has none."""
    layers: tuple[Similarity, ...]
    """Of the compiled one, the worst first."""
    min_agreement: float

    @property
    def best(self) -> Trial:
        """The trial that was compiled."""
        return self.trials[0]

    @property
    def passed(self) -> bool:
        """True if the compiled model agrees with the float model often enough."""
        return self.best.agreement >= self.min_agreement

    def changed(self) -> list[int]:
        """Return indices of the pictures whose class differs from the float model's."""
        changed = self.best.answers.decisions != self.of_float.decisions
        return [int(number) for number in np.flatnonzero(changed)]

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


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A model to be compiled and certified."""

    model: Path
    """The float .onnx, without a last activation."""
    name: str
    """Of the catalogue, or the name of your own model."""
    calibration: Calibration
    """Made from `pictures` in `out`."""
    out: Path
    """The folder for all files."""
    toolchain: Toolchain
    pictures: Path
    """The folder; its subfolders may name classes."""
    labels: tuple[str, ...]
    """The model's class names."""
    methods: tuple[Method, ...]
    """Tried in this order; the first wins a tie."""
    batch: int = 1
    """Pictures in one inference of the compiled model."""
    held_out: int = HELD_OUT
    """Most pictures to compare on."""
    min_agreement: float = 0.97
    """See Certificate.passed."""
    max_drop: float = MAX_DROP
    """Accuracy that a faster variant may lose, 0.0 to 1.0; agreement, if pictures have no labels."""
    int16: bool = True
    """True if nodes may be kept at 16 bits where eight lose too much."""
    progress: ShowStage = lambda *_: None
    with_bar: WrapPictures = lambda items, _: items


def certify(assignment: Assignment) -> Certificate:
    """Try the methods, compile the best, and verify the result.

    Raises:
        ConversionError: no picture is left, no method works, the compiler fails, or the compiled model
            answers other than the quantized one.
        DependencyError: onnx, ONNX Runtime or PyYAML is missing.
        BackendError: a model cannot be run.

    """
    trials = _Trials(assignment)
    trials.run()
    best, why = trials.choose()
    job = trials.prepare(best, assignment.out, batch=assignment.batch)
    progress = _prefixed(assignment.progress, f"compiling {best.name}")
    compiled = compile_bin(job, assignment.toolchain, progress)
    try:
        file = read_model_file(compiled)
        model = next(iter(file.compiled), None)
        unsimulated = model.unfit_for_simulation() if model and model.cpu_nodes else ""
        simulated, drift = (0, 0.0) if unsimulated else _prove(file, best.answers, assignment)
        predicted_int8 = trials.int8_prediction(best)
        cpu_operators = measure_cpu_operators(job.quantized, model.cpu_nodes if model else {})
    except BaseException:  # an interrupt, too: no .bin without its certificate
        compiled.unlink()
        raise
    return Certificate(
        bin=compiled,
        job=job,
        calibration=assignment.calibration,
        labels=assignment.labels,
        batch=assignment.batch,
        of_float=trials.of_float,
        trials=(best, *(trial for trial in trials.ranked() if trial is not best)),
        why=why,
        failed=trials.failed,
        simulated=simulated,
        simulator_drift=drift,
        unsimulated=unsimulated,
        cpu_operators=cpu_operators,
        predicted=prediction(job),
        predicted_int8=predicted_int8,
        layers=tuple(similarities(job)),
        min_agreement=assignment.min_agreement,
    )


class _Trials:
    """The calibrations of an assignment that were tried, and the float model's answers."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        samples = _held_out(assignment)
        options = BackendOptions(color_range=assignment.calibration.color_range)
        backend = OnnxBackend(assignment.model, options)
        activation = activation_of(read_model_file(assignment.model), backend)
        self.of_float = _answers(backend, assignment.model, samples, assignment, activation)
        if not self.of_float.samples:
            raise ConversionError(f"none of the {len(samples)} held-out pictures can be read")
        self._made: list[Trial] = []
        self.failed: dict[str, str] = {}
        self._int8_prediction: SpeedEstimate | None = None

    def run(self) -> None:
        """Try the methods with and without branches, then what costs more, until enough is kept."""
        variants = _variants(self._assignment.model, self._assignment.out)
        for variant in variants:
            self._attempt(variant, self._assignment.methods)
        if not self._made:
            raise ConversionError(next(iter(self.failed.values())))
        for variant in _remedied(variants[0], self._assignment):
            if self._is_enough():
                return
            self._attempt(variant, self._assignment.methods)
        if self._assignment.int16 and not self._is_enough():
            self._keep_layers_at_int16(self.ranked()[0])

    def ranked(self) -> list[Trial]:
        """Return the trials, the best first."""
        return sorted(self._made, key=_rank)

    def choose(self) -> tuple[Trial, str]:
        """Return the trial to compile, and why."""
        return _choose(self.ranked(), self.of_float, self._assignment.max_drop)

    def prepare(self, trial: Trial, out: Path, *, batch: int = 1) -> Job:
        """Write what the toolchain needs for a trial."""
        return self._job(trial.variant, trial.method, out, batch=batch)

    def int8_prediction(self, trial: Trial) -> SpeedEstimate | None:
        """Return the speed of a trial without its nodes at int16; None if it has none."""
        return self._int8_prediction if trial.variant.int16 else None

    def _keep_layers_at_int16(self, trial: Trial) -> None:
        """Compile a trial to learn which layers lose most, and keep more and more of them."""
        folder, batch = self._assignment.out / "tried" / "int8", self._assignment.batch
        job = self._job(trial.variant, trial.method, folder, batch=batch)
        progress = _prefixed(self._assignment.progress, "finding the worst layers")
        compile_bin(job, self._assignment.toolchain, progress).unlink()
        self._int8_prediction = prediction(job)
        # The toolchain's own preprocessing is not a layer of the model.
        layers = [
            similarity.layer
            for similarity in similarities(job)
            if not similarity.layer.startswith("HZ_")
        ]
        for count in INT16_NODES:
            variant = replace(trial.variant, int16=tuple(layers[:count]))
            self._attempt(variant, (trial.method,))
            if self._is_enough():
                return

    def _is_enough(self) -> bool:
        drops = (_drop(t, self.of_float) for t in self._made if t.variant.fused)
        return any(drop <= self._assignment.max_drop for drop in drops)

    def _attempt(self, variant: Variant, methods: Sequence[Method]) -> None:
        """Quantize a variant with some methods, and let the results answer the pictures."""
        for method in methods:
            name = _name(method, variant)
            job = self._job(variant, method, self._assignment.out / "tried" / _slug(name))
            try:
                progress = _prefixed(self._assignment.progress, name)
                quantized = quantize_only(job, self._assignment.toolchain, progress)
            except ConversionError as error:
                self.failed[name] = str(error)
                continue
            samples, activation = self.of_float.samples, self.of_float.activation
            backend = QuantizedBackend(quantized)
            answers = _answers(backend, quantized, samples, self._assignment, activation)
            agreement, drift = _compare(self.of_float, answers)
            self._made.append(
                Trial(
                    variant=variant,
                    method=method,
                    answers=answers,
                    agreement=agreement,
                    drift=drift,
                )
            )

    def _job(self, variant: Variant, method: Method, out: Path, *, batch: int = 1) -> Job:
        return prepare(
            variant.model,
            self._assignment.name,
            self._assignment.calibration,
            out,
            method=method,
            batch=batch,
            int16=variant.int16,
        )


def _name(method: Method, variant: Variant) -> str:
    branches = "" if variant.fused else "with branches"
    int16 = f"{len(variant.int16)} nodes at int16" if variant.int16 else ""
    return ", ".join(filter(None, (method.name, branches, variant.remedy, int16)))


def _slug(name: str) -> str:
    """Return a folder's name."""
    return name.replace(", ", "-").replace(" ", "-")


def _prefixed(progress: ShowStage, name: str) -> ShowStage:
    return lambda stage, percent: progress(f"{name}: {stage}", percent)


def _variants(model: Path, out: Path) -> list[Variant]:
    """Return the model without branches first, and as it is where it has some."""
    if is_fused(load(model)):
        return [Variant(model, True)]
    fused = out / f"{model.stem}_fused.onnx"
    fuse_file(model, fused)
    return [Variant(fused, True), Variant(model, False)]


def _remedied(variant: Variant, assignment: Assignment) -> Iterator[Variant]:
    """Yield the variant with its weights prepared for eight bits, by more and more remedies."""
    backend, model = open_float(variant.model), load(variant.model)
    stem, calibration = variant.model.stem, assignment.calibration
    model = equalize(model, images(calibration, backend))
    path = assignment.out / f"{stem}_equalized.onnx"
    save(model, path)
    yield Variant(path, variant.fused, "equalized")
    path = assignment.out / f"{stem}_corrected.onnx"
    save(correct_biases(model, images(calibration, backend)), path)
    yield Variant(path, variant.fused, "equalized, biases corrected")


def _rank(trial: Trial) -> tuple[float, float, float]:
    """Sort key for trials, the best first."""
    return -trial.agreement, -(trial.answers.accuracy() or 0.0), trial.drift


def _drop(trial: Trial, of_float: Answers) -> float:
    """Return the share of float's accuracy that a trial loses, of agreement if there are no labels."""
    accuracy = of_float.accuracy()
    return 1 - trial.agreement if accuracy is None else accuracy - (trial.answers.accuracy() or 0.0)


def _choose(trials: Sequence[Trial], of_float: Answers, max_drop: float) -> tuple[Trial, str]:
    """Return the fastest trial that keeps the accuracy, and why; `trials` is sorted, the best first."""
    kept = "accuracy" if of_float.accuracy() is not None else "agreement"
    best: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda trial: _drop(trial, of_float) > max_drop):
        best.setdefault(trial.variant.kind, trial)
    if len(best) == 1:
        why = "it agrees with the float model most often, then changes scores least"
        return next(iter(best.values())), why
    # Fewest changes first; those that are slower, with branches or 16 bits, last.
    costs = {kind: (best[kind], _drop(best[kind], of_float)) for kind in _KINDS if kind in best}
    said = ", ".join(f"{_KINDS[kind]} {drop:.2%}" for kind, (_, drop) in costs.items())
    said = f"loss of {kept}: {said}"
    for kind, (trial, drop) in costs.items():
        if drop <= max_drop:
            return trial, f"{said}; {_KINDS[kind]} is the fastest that keeps enough"
    kind, (trial, _) = min(costs.items(), key=lambda item: item[1][1])
    return trial, f"{said}; all lose more than {max_drop:.2%}, {_KINDS[kind]} the least"


def _held_out(assignment: Assignment) -> list[Sample]:
    paths = spread(assignment.calibration.held_out, assignment.held_out)
    if not paths:
        raise ConversionError(
            f"all pictures in '{assignment.pictures}' were trained or calibrated with, none is left "
            "to measure on: give more, or fewer --samples"
        )
    try:
        samples = find_samples(assignment.pictures, Classes(assignment.labels))
        known = {sample.path: sample for sample in samples}
    except SourceError:  # folders that do not name classes
        known = {}
    return [known.get(path, Sample(path, None)) for path in paths]


def _answers(
    backend: OnnxBackend | QuantizedBackend,
    path: Path,
    samples: Sequence[Sample],
    assignment: Assignment,
    activation: Activation,
) -> Answers:
    calibration, labels = assignment.calibration, assignment.labels
    taken = calibration.color_range, backend, activation
    with Model(path.name, path, labels, *taken, fit=calibration.fit) as model:
        outcomes = classify_each(model, samples, lambda sample: read_image(sample.path))
        read, logits = [], []
        shown = assignment.with_bar((sample.path for sample in samples), len(samples))
        for _, outcome in zip(shown, outcomes, strict=False):
            if isinstance(outcome, Answered):
                read.append(outcome.request.message)
                logits.append(outcome.logits)
            elif not isinstance(outcome.error, (FrameError, OSError)):
                raise outcome.error
    return Answers(tuple(read), np.array(logits, np.float32), activation)


def _compare(of_float: Answers, answers: Answers) -> tuple[float, float]:
    """Return agreement and drift of a Trial."""
    drifts = []
    for mine, theirs in zip(of_float.scores, answers.scores, strict=True):
        best = int(mine.argmax())
        drifts.append(abs(mine[best] - theirs[best]))
    agreement = float((of_float.decisions == answers.decisions).mean())
    return agreement, float(np.mean(drifts))


def _prove(compiled: ModelFile, answers: Answers, assignment: Assignment) -> tuple[int, float]:
    """Simulate some pictures; returns how many, and the largest difference.

    Raises:
        ConversionError: it answers other than the quantized model.

    """
    model = compiled.for_simulation()
    chosen = spread(range(len(answers.samples)), max(SIMULATED, model.batch))
    worst, count = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="repghost_sim_") as scratch:
        folder = Path(scratch)
        (folder / "model.hbm").write_bytes(model.program)
        for first in range(0, len(chosen), model.batch):
            numbers = chosen[first : first + model.batch]
            # The last batch is padded with its last picture.
            frames = [
                assignment.calibration.nv12(answers.samples[number].path)
                for number in (*numbers, *numbers[-1:] * (model.batch - len(numbers)))
            ]
            logits = simulate(assignment.toolchain, model, frames, folder)[: len(numbers)]
            expected = answers.logits[numbers]
            worst = max(worst, float(np.abs(logits - expected).max() / np.abs(expected).max()))
            count += len(numbers)
    if not worst <= TOLERANCE:
        raise ConversionError(
            f"'{compiled}' answers other than the quantized model, by {worst:.1e} of the largest "
            "logit: it was deleted"
        )
    return count, worst
