# SPDX-License-Identifier: Apache-2.0
"""Quantize a model: a .bin with a certificate, and an INT8 ONNX for ONNX Runtime.

The .bin needs the vendor's toolchain. Where that is missing or broken, the command fails after writing
everything else; --prepare asks for no more, to compile on another machine. DIR holds pictures like
those the model will see, ideally with one subfolder per class.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from repghost_ros.backends.base import BackendOptions
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.toolchain import Toolchain, find_toolchain
from repghost_ros.cli.common import (
    add_preprocessing,
    add_resize,
    did_you_mean,
    fraction,
    positive,
)
from repghost_ros.cli.report import Table
from repghost_ros.cli.terminal import download_bar, stage_bar, with_bar
from repghost_ros.convert.calibration import SAMPLES, Calibration, calibrate
from repghost_ros.convert.certificate import HELD_OUT, MAX_DROP, Assignment, Certificate, certify
from repghost_ros.convert.certificate_page import (
    difference,
    int16_price,
    on_cpu,
    write_certificate_page,
)
from repghost_ros.convert.compilation import METHODS, check_compilable, prepare, without_activation
from repghost_ros.convert.cpu_operators import CpuOperator
from repghost_ros.convert.quantization import (
    compare_precisions,
    open_float,
    quantize,
    with_preprocessing,
)
from repghost_ros.errors import (
    BackendError,
    ConversionError,
    DependencyError,
    OutputError,
    StoreError,
    UsageError,
    need,
)
from repghost_ros.graphs.graph import load, refuse_quantized
from repghost_ros.output import whole_file
from repghost_ros.vision.nv12 import COLOR_RANGES
from repghost_ros.zoo.catalogue import DEMO, MODEL_NAMES, MODELS, preprocessing_of
from repghost_ros.zoo.labels import labels_for, read_labels
from repghost_ros.zoo.model_file import AUTO, read_model_file
from repghost_ros.zoo.own import write_own
from repghost_ros.zoo.store import ModelStore, check_own_name, resolve

HELP = "make int8 models: for the board, with a certificate, and for ONNX Runtime"
_LAYERS = 3  # listed where too much was lost
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizeReport:
    """The files that were written, and what eight bits cost."""

    about: dict[str, Any]
    """The model and what it was calibrated with."""
    results: list[dict[str, Any]]
    """Of kind int8 and vendor."""

    @property
    def failed(self) -> bool:
        """True if the toolchain is missing or failed, or its file agrees too rarely with float."""
        return any("error" in r or "why_not" in r or r.get("passed") is False for r in self.results)

    def text(self) -> Iterator[str | Table]:
        """Yield the files written, and their cost in accuracy."""
        calibration = self.about["calibration"]
        yield (
            f"{calibration['pictures']} pictures in {calibration['folder']}, fitted to the input by "
            f"resize: {calibration['resize']}"
        )
        for result in self.results:
            if result["kind"] == "int8":
                yield from _int8_text(result, self.about["model"])
            else:
                yield from _vendor_text(result)

    def as_json(self) -> dict[str, Any]:
        """Return a dict for each kind of file."""
        return {**self.about, "results": self.results}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost quantize`."""
    parser.add_argument(
        "model", metavar="MODEL|FILE.onnx", help="of `repghost models`, or a float .onnx file"
    )
    parser.add_argument(
        "--calibration", type=Path, required=True, metavar="DIR", help="a folder of pictures"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: ./quantized_MODEL)"
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=SAMPLES,
        metavar="N",
        help="pictures to calibrate with (default: %(default)s)",
    )
    parser.add_argument(
        "--color-range",
        choices=COLOR_RANGES,
        default="full",
        help="range of the NV12 that the node will send (default: %(default)s)",
    )
    _add_search(parser)
    parser.add_argument(
        "--batch",
        type=positive,
        default=1,
        metavar="N",
        help="pictures in one inference of the .bin (default: %(default)s)",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="class names, where the model carries none"
    )
    parser.add_argument(
        "--store",
        nargs="?",
        const="",
        metavar="NAME",
        help="put a .bin that passed into the store, as this model's; one of your own gets a NAME",
    )
    add_preprocessing(parser)
    add_resize(parser)
    parser.add_argument("--skip", choices=("vendor", "int8"), help="make only the other one")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="write what the vendor's toolchain needs, and do not run it",
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    """Add the options of the search for the best calibration."""
    parser.add_argument(
        "--methods",
        type=_methods,
        default=tuple(METHODS),
        metavar="A,B",
        help=f"calibrations to try, of {', '.join(METHODS)} (default: all; `default` is the slowest)",
    )
    parser.add_argument(
        "--held-out",
        type=positive,
        default=HELD_OUT,
        metavar="N",
        help="pictures to compare the calibrations on (default: %(default)s)",
    )
    parser.add_argument(
        "--min-agreement",
        type=fraction,
        default=0.97,
        metavar="SHARE",
        help="of these pictures, how many must keep float's class (default: %(default)s)",
    )
    parser.add_argument(
        "--max-drop",
        type=fraction,
        default=MAX_DROP,
        metavar="SHARE",
        help="accuracy that int8 may lose before branches or prepared weights are preferred "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--no-int16",
        dest="int16",
        action="store_false",
        help="keep no layer at 16 bits where eight lose too much",
    )


def run(options: argparse.Namespace) -> QuantizeReport:
    """Write the files, and run what is there to run."""
    if options.store is not None:
        if options.batch > 1:
            raise UsageError("--store is for one picture an inference")
        if options.model not in MODELS and not options.store:
            raise UsageError("--store needs a NAME for a model of your own")
        if options.model not in MODELS:
            check_own_name(options.store)
        elif options.store:
            raise UsageError(f"--store needs no name for {options.model}")
    model = _resolve(options.model)
    out = options.out or Path(
        f"quantized_{options.model if options.model in MODELS else model.stem}"
    )
    try:
        return _make(options, model, out)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OutputError(f"the disk of '{out}' is full ({error})") from error


def _make(options: argparse.Namespace, model: Path, out: Path) -> QuantizeReport:
    name = options.model if options.model in MODELS else model.stem
    refuse_quantized(load(model), f"'{model}'")
    if options.skip != "vendor":  # before long work
        need("yaml", "pip install pyyaml")
        check_compilable(model)
    model = _with_preprocessing(model, out, options)
    backend, own = open_float(model), read_model_file(model).own
    toolchain = _toolchain() if options.skip != "vendor" and not options.prepare else None
    labels = _labels(options, backend) if isinstance(toolchain, Toolchain) else ()
    calibration = calibrate(
        options.calibration,
        out,
        height=backend.height,
        width=backend.width,
        samples=options.samples,
        color_range=options.color_range,
        fit=own.fit(),
        trained=own.trained,
        channel_order="bgr" if backend.is_bgr else "rgb",
        progress=_with_bar,
    )
    _warn(calibration.skipped)
    about: dict[str, Any] = {
        "model": str(model),
        "color_range": options.color_range,
        "calibration": {
            "folder": str(calibration.folder),
            "pictures": len(calibration.pictures),
            "held_out": len(calibration.held_out),
            "skipped": [str(path) for path, _ in calibration.skipped],
            **calibration.fit._asdict(),
        },
    }
    results = []
    if options.skip != "int8":
        results.append(_int8(model, calibration, out))
    if options.skip != "vendor":
        results.append(_vendor(options, model, name, labels, calibration, out, toolchain))
    return QuantizeReport(about, results)


def _toolchain() -> Toolchain | str:
    """Return the toolchain, or why there is none."""
    try:
        return find_toolchain()
    except DependencyError as error:
        return str(error)


def _labels(options: argparse.Namespace, backend: OnnxBackend) -> tuple[str, ...]:
    """Return the class names for the certificate."""
    if options.labels:
        return read_labels(options.labels, backend.classes)
    return backend.labels or labels_for(options.model, backend.classes)


def _methods(text: str) -> Sequence[str]:
    """Parse an argument that lists calibrations."""
    names = tuple(text.split(","))
    if not set(names) <= METHODS.keys():
        raise ValueError
    return names


def _resolve(model: str) -> Path:
    if model not in MODEL_NAMES:
        if Path(model).suffix.lower() != ".onnx":
            hint = did_you_mean(model, MODEL_NAMES)
            raise UsageError(f"'{model}' is not a model{hint}, or an .onnx file")
        return resolve(DEMO, "onnx", model_path=model)
    try:
        with download_bar(model) as progress:
            return resolve(model, "onnx", progress=progress)
    except StoreError as error:
        raise ConversionError(f"{error}; or make it: repghost export {model}") from error


def _with_preprocessing(model: Path, out: Path, options: argparse.Namespace) -> Path:
    """Write a copy of the model that records the options and the catalogue's record.

    All files made of it do so, too.
    """
    resize = None if options.resize == AUTO else options.resize
    is_known = options.model in MODELS
    if not (is_known or resize or options.mean or options.scale or options.channel_order != AUTO):
        return model
    copy = out / model.name
    if copy.exists() and copy.samefile(model):
        raise UsageError(
            f"--out must not be the folder of '{model}', for a copy is written there that records "
            "what the model wants done to its pictures"
        )
    wanted = BackendOptions(
        mean=options.mean,
        scale=options.scale,
        channel_order=options.channel_order,
        preprocessing=preprocessing_of(options.model),
    )
    with_preprocessing(model, copy, wanted, resize)
    return copy


def _int8(model: Path, calibration: Calibration, out: Path) -> dict[str, Any]:
    path = quantize(model, calibration, out)
    compared = compare_precisions(model, path, calibration, _with_bar)
    _warn(compared.skipped)
    color_range = ("--color-range", calibration.color_range)
    command = ("repghost", "eval", "DIR", "--model", str(model), "--against", str(path))
    return {
        "kind": "int8",
        **asdict(compared),
        "skipped": [str(path) for path, _ in compared.skipped],
        "path": str(path),
        "eval": shlex.join((*command, *(color_range if color_range[1] != "full" else ()))),
    }


def _int8_text(report: dict[str, Any], model: str) -> Iterator[str | Table]:
    float_ms, int8_ms = report["float_ms"], report["int8_ms"]
    yield Table(
        ("model", "MB", "ms, one thread"),
        [
            (model, f"{report['float_bytes'] / 1e6:.2f}", f"{float_ms:.2f}"),
            (report["path"], f"{report['int8_bytes'] / 1e6:.2f}", f"{int8_ms:.2f}"),
        ],
    )
    pictures, same = report["pictures"], report["same_top1"]
    kind = "held-out pictures" if report["held_out"] else "pictures, all of them calibrated with"
    yield (
        f"int8 is {report['float_bytes'] / report['int8_bytes']:.2f} times smaller and "
        f"{float_ms / int8_ms:.2f} times as fast on this machine\n"
        f"same top-1: {same} of {pictures} {kind} ({same / pictures:.2%}); its score changes by "
        f"{report['score_drift']:.4f} on average\n"
        f"accuracy on labelled pictures: {report['eval']}"
    )


def _vendor(
    options: argparse.Namespace,
    model: Path,
    name: str,
    labels: tuple[str, ...],
    calibration: Calibration,
    out: Path,
    toolchain: Toolchain | str | None,
) -> dict[str, Any]:
    """Make the .bin and its certificate, or with --prepare a folder from which they can be made."""
    logits = without_activation(model, out)
    job = prepare(logits, name, calibration, out, batch=options.batch)
    report: dict[str, Any] = {
        "kind": "vendor",
        "yaml": str(job.yaml),
        "command": f"cd {shlex.quote(str(out))} && {shlex.join(job.command)}",
        "makes": str(job.work / f"{job.prefix}.bin"),
        "compiled": False,
    }
    if toolchain is None:
        return report
    if isinstance(toolchain, str):
        _log.error("no .bin was made: %s", toolchain)
        return {**report, "why_not": toolchain}
    certified, page = out / "certificate.json", out / "report.html"
    for earlier in (job.bin, certified, page):
        earlier.unlink(missing_ok=True)
    try:
        with stage_bar() as progress:
            certificate = certify(
                Assignment(
                    model=logits,
                    name=name,
                    calibration=calibration,
                    out=out,
                    toolchain=toolchain,
                    pictures=options.calibration,
                    labels=labels,
                    methods=tuple(METHODS[method] for method in options.methods),
                    batch=options.batch,
                    held_out=options.held_out,
                    min_agreement=options.min_agreement,
                    max_drop=options.max_drop,
                    int16=options.int16,
                    progress=progress,
                    with_bar=_with_bar,
                )
            )
    except (ConversionError, BackendError) as error:
        _log.error(str(error))
        return {**report, "error": str(error)}
    report |= _certified(certificate, options.model)
    with whole_file(certified) as partial:
        partial.write_text(json.dumps(report, indent=1), encoding="utf-8")
    size = MODELS.get(options.model)
    write_certificate_page(page, certificate, size.published if size else None)
    report["page"] = str(page)
    if stored := _describe_and_store(options, model, certificate):
        report["stored"] = str(stored)
    return report


def _describe_and_store(
    options: argparse.Namespace, model: Path, certificate: Certificate
) -> Path | None:
    """Write what the .bin cannot record beside it, and return where a copy was stored, if it was."""
    # Of another activation, what is left of it in the .bin is the runtime's affair.
    described = replace(read_model_file(model).own, labels=certificate.labels)
    if certificate.of_float.activation == "softmax":
        described = replace(described, activation="softmax")
    write_own(described, certificate.bin)
    if options.store is None or not certificate.passed:
        return None
    with tempfile.TemporaryDirectory(prefix="repghost_quantize_") as scratch:
        copy = Path(scratch) / certificate.bin.name
        shutil.copyfile(certificate.bin, copy)
        stored = ModelStore().adopt(options.store or options.model, "bin", copy)
    write_own(described, stored)
    return stored


def _certified(certificate: Certificate, model: str) -> dict[str, Any]:
    best, predicted = certificate.best, certificate.predicted
    published = MODELS[model].published if model in MODELS else None
    return {
        "compiled": True,
        "makes": str(certificate.bin),
        "bytes": certificate.bin.stat().st_size,
        "quantized": str(certificate.job.quantized),
        "batch": certificate.batch,
        "passed": certificate.passed,
        "min_agreement": certificate.min_agreement,
        "pictures": len(certificate.of_float.samples),
        "method": best.method.name,
        "fused": best.variant.fused,
        "remedy": best.variant.remedy or None,
        "int16": list(best.variant.int16),
        "activation": certificate.of_float.activation,
        "why": certificate.why,
        "agreement": best.agreement,
        "float_top1": certificate.of_float.accuracy(),
        "int8_top1": best.answers.accuracy(),
        "trials": [
            {
                "name": trial.name,
                "method": trial.method.name,
                "fused": trial.variant.fused,
                "remedy": trial.variant.remedy or None,
                "int16": list(trial.variant.int16),
                "agreement": trial.agreement,
                "top1": trial.answers.accuracy(),
                "score_drift": trial.drift,
            }
            for trial in certificate.trials
        ],
        "failed_methods": certificate.failed,
        "simulated": certificate.simulated,
        "simulator_drift": certificate.simulator_drift,
        "unsimulated": certificate.unsimulated or None,
        "cpu_operators": [asdict(each) for each in certificate.cpu_operators],
        "predicted": asdict(predicted),
        "int16_price": int16_price(certificate) or None,
        "published": asdict(published) if published else None,
        "worst_layers": [asdict(layer) for layer in certificate.layers[:10]],
        "worst_classes": [
            {"class": label, "pictures": count, "float_right": of_float, "int8_right": of_int8}
            for label, count, of_float, of_int8 in certificate.worst_classes()[:10]
        ],
        "changed": [
            str(certificate.of_float.samples[number].path) for number in certificate.changed()
        ],
    }


def _vendor_text(report: dict[str, Any]) -> Iterator[str | Table]:
    if "error" in report:
        return
    if not report["compiled"]:
        yield (
            "no .bin was made; where the vendor's toolchain is, this makes "
            f"{report['makes']}:\n  {report['command']}"
        )
        return
    yield Table(
        ("calibration", "agreement", "top-1", "score changes by"),
        [
            (
                trial["name"],
                f"{trial['agreement']:.2%}",
                None if trial["top1"] is None else f"{trial['top1']:.2%}",
                f"{trial['score_drift']:.4f}",
            )
            for trial in report["trials"]
        ],
    )
    for name, why in report["failed_methods"].items():
        yield f"{name} failed: {why.splitlines()[0]}"
    predicted = report["predicted"]
    yield (
        f"compiled: {report['trials'][0]['name']} ({report['why']})\n"
        f"{report['makes']}, {report['bytes'] / 1e6:.2f} MB\n"
        f"in the simulator: {_simulated(report)}\n"
        f"predicted by the compiler: {predicted['latency_us']:.0f} us an inference, "
        f"{predicted['fps']:.0f} frames a second, {predicted['ddr_bytes'] / 1e6:.2f} MB of memory "
        "traffic a frame"
    )
    if report["int16_price"]:
        yield report["int16_price"]
    if report["cpu_operators"]:
        yield on_cpu([CpuOperator(**each) for each in report["cpu_operators"]])
    if report["published"]:
        published = report["published"]
        yield f"published: {published['latency_1_ms']} ms, {published['fps']} frames a second"
    yield f"report: {report['page']}"
    if "stored" in report:
        yield f"stored: {report['stored']}"
    if not report["passed"]:
        layers = ", ".join(
            f"{layer['layer']} ({layer['cosine']:.3f})"
            for layer in report["worst_layers"][:_LAYERS]
        )
        yield (
            f"FAILED: it agrees with the float model on {report['agreement']:.2%} of "
            f"{report['pictures']} pictures; at least {report['min_agreement']:.2%} was required. The "
            f"layers least like the float model's are {layers}"
        )


def _simulated(report: dict[str, Any]) -> str:
    if report["unsimulated"]:
        return f"not checked, {report['unsimulated']}"
    return (
        f"like the quantized model on {report['simulated']} pictures, "
        f"{difference(report['simulator_drift'])}"
    )


def _warn(skipped: Iterable[tuple[Path, str]]) -> None:
    for path, why in skipped:
        _log.warning("'%s' was left out: %s", path, why)


def _with_bar(paths: Iterable[Path], total: int) -> Iterable[Path]:
    return with_bar(paths, total, "picture")
