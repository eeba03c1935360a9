"""Quantize a model: files for the vendor's toolchain, and an INT8 ONNX to measure on a PC.

hb_mapper is run where it is on PATH. DIR holds pictures like those the model will see, best a folder a
class.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    download_bar,
    positive,
    print_error,
    with_bar,
)
from repghost_ros.cli.report import Table
from repghost_ros.convert.calibration import SAMPLES, Calibration, calibrate
from repghost_ros.convert.quantization import compare, open_float, quantize
from repghost_ros.convert.toolchain import MAPPER, compile_bin, prepare
from repghost_ros.errors import ConversionError, StoreError, UsageError, need
from repghost_ros.vision.nv12 import COLOR_RANGES
from repghost_ros.zoo.catalogue import DEMO, MODEL_NAMES, MODELS
from repghost_ros.zoo.store import resolve

HELP = "make int8 models: for the vendor's toolchain and for ONNX Runtime"


@dataclass(frozen=True)
class QuantizeReport:
    """The files that were written, and what eight bits cost."""

    about: dict[str, Any]
    """The model and what it was calibrated with."""
    results: list[dict[str, Any]]
    """Of kind int8 and vendor."""

    @property
    def failed(self) -> bool:
        """Whether the vendor's toolchain was run and failed."""
        return any("error" in result for result in self.results)

    def text(self) -> Iterator[str | Table]:
        """What was written, and what it costs."""
        calibration = self.about["calibration"]
        yield f"{calibration['pictures']} pictures in {calibration['folder']}"
        for result in self.results:
            if result["kind"] == "int8":
                yield from _int8_text(result, self.about["model"])
            else:
                yield from _vendor_text(result)

    def as_json(self) -> dict[str, Any]:
        """A dict a kind of file."""
        return {**self.about, "results": self.results}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost quantize`."""
    parser.add_argument(
        "model", metavar="SIZE|FILE.onnx", help=f"{', '.join(MODEL_NAMES)}, or a float .onnx file"
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
    parser.add_argument("--skip", choices=("vendor", "int8"), help="make only the other one")


def run(options: argparse.Namespace) -> QuantizeReport:
    """Write the files, and run what is there to run."""
    if options.skip != "vendor":
        need("yaml", "pip install pyyaml")  # before long work
    model = _resolve(options.model)
    name = options.model if options.model in MODELS else model.stem
    out = options.out or Path(f"quantized_{name}")
    backend = open_float(model)
    calibration = calibrate(
        options.calibration,
        out,
        height=backend.height,
        width=backend.width,
        samples=options.samples,
        color_range=options.color_range,
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
        },
    }
    results = []
    if options.skip != "int8":
        results.append(_int8(model, calibration, out))
    if options.skip != "vendor":
        results.append(_vendor(model, name, calibration, out))
    return QuantizeReport(about, results)


def _resolve(model: str) -> Path:
    if model not in MODEL_NAMES:
        if Path(model).suffix.lower() != ".onnx":
            raise UsageError(f"'{model}' is no model: {', '.join(MODEL_NAMES)}, or an .onnx file")
        return resolve(DEMO, "onnx", model_path=model)
    try:
        with download_bar(model) as progress:
            return resolve(model, "onnx", progress=progress)
    except StoreError as error:
        raise ConversionError(f"{error}; or make it: repghost export {model}") from error


def _int8(model: Path, calibration: Calibration, out: Path) -> dict[str, Any]:
    path = quantize(model, calibration, out)
    compared = compare(model, path, calibration, _with_bar)
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


def _vendor(model: Path, name: str, calibration: Calibration, out: Path) -> dict[str, Any]:
    job = prepare(model, name, calibration, out)
    report = {
        "kind": "vendor",
        "yaml": str(job.yaml),
        "command": f"cd {shlex.quote(str(out))} && {shlex.join(job.command)}",
        "makes": str(job.bin),
        "compiled": False,
    }
    try:
        report["compiled"] = compile_bin(job) is not None
    except ConversionError as error:
        report["error"] = str(error)
        print_error(str(error))
    return report


def _vendor_text(report: dict[str, Any]) -> Iterator[str]:
    if report["compiled"]:
        yield (f"compiled: {report['makes']}")
    if report["compiled"] or "error" in report:
        return
    yield (
        f"{MAPPER} is not on PATH; where it is, this makes {report['makes']}:\n  {report['command']}"
    )


def _warn(skipped: Iterable[tuple[Path, str]]) -> None:
    for path, why in skipped:
        print_error(f"'{path}' was left out: {why}")


def _with_bar(paths: Iterable[Path], total: int) -> Iterable[Path]:
    return with_bar(paths, total, "picture")
