# SPDX-License-Identifier: Apache-2.0
"""Shared by the subcommands: options of models, checked arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from repghost_ros.backends.base import ACTIVATIONS, CHANNEL_ORDERS, BackendOptions
from repghost_ros.backends.registry import BACKENDS, BPU_RUNTIMES
from repghost_ros.cli.terminal import download_bar
from repghost_ros.engine.matching import Matcher
from repghost_ros.engine.model import Model, ModelSpec
from repghost_ros.engine.results import Reporting
from repghost_ros.engine.threads import cores, threads_beside
from repghost_ros.errors import ParameterError, RepghostError, UsageError, need
from repghost_ros.vision.boxes import BoxChoice
from repghost_ros.vision.nv12 import COLOR_RANGES, INTERPOLATIONS, RESIZE_POLICIES
from repghost_ros.vision.view import View
from repghost_ros.zoo.catalogue import DEFAULT, MODEL_NAMES, nearest
from repghost_ros.zoo.model_file import AUTO
from repghost_ros.zoo.store import is_known

_PLOTS = (".png", ".svg", ".pdf")
_OPTIONS = {
    "model_path": "--model",
    "model_name": "--model-name",
    "labels_path": "--labels",
    "bpu_runtime": "--bpu-runtime",
    "color_range": "--color-range",
}


def add_model(parser: argparse.ArgumentParser, *, pictures: bool = True) -> None:
    """Add --model and how it is run.

    Args:
        parser: the command's.
        pictures: whether pictures are classified, so that --resize and --workers apply; else several
            models may be given.

    """
    parser.add_argument(
        *("--model", "--model-path"),
        dest="model",
        metavar="MODEL",
        help=f"of `repghost models`, or a model file (default: {DEFAULT})",
        nargs=None if pictures else "+",
        default=DEFAULT if pictures else [DEFAULT],
    )
    parser.add_argument(
        "--model-name", default="", metavar="NAME", help="model to use from a .bin with several"
    )
    parser.add_argument(
        "--labels", default="", metavar="FILE", help="file of class names, one per line"
    )
    _add_runtime(parser)
    add_preprocessing(parser)
    parser.add_argument(
        "--color-range",
        choices=(AUTO, *COLOR_RANGES),
        default=AUTO,
        help="NV12 range that the model was compiled for (auto: from its file)",
    )
    if pictures:
        _add_pictures(parser)
    else:
        parser.set_defaults(workers=None)  # in total one per core, as the runtime's own threads


def _add_runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="auto: the BPU if there is one"
    )
    parser.add_argument(
        "--bpu-runtime",
        choices=BPU_RUNTIMES,
        default="auto",
        help="auto: the fastest one available",
    )
    parser.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        default="auto",
        help="how outputs become scores (auto: by the end of the graph, else by the answers)",
    )
    parser.add_argument(
        "--onnx-providers",
        default="auto",
        metavar="NAME,NAME",
        help="ONNX Runtime execution providers, such as cuda (auto: all available)",
    )


def add_resize(parser: argparse.ArgumentParser) -> None:
    """Add --resize."""
    parser.add_argument(
        "--resize",
        choices=(AUTO, *RESIZE_POLICIES),
        default=AUTO,
        help="how pictures are fitted to the model's input (auto: as its file says, else stretch)",
    )


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    add_resize(parser)
    parser.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        default=INTERPOLATIONS[0],
        help="how pictures are scaled; bilinear: as the model zoo's samples do, to compare with them",
    )
    parser.add_argument(
        "--temperature",
        type=positive_float,
        default=1.0,
        metavar="T",
        help="divides the logits; fitted by eval --report (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="pictures classified in parallel (default: one per core)",
    )


def add_view(parser: argparse.ArgumentParser) -> None:
    """Add --roi, for `view`."""
    parser.add_argument(
        "--roi",
        type=_roi,
        default=(0, 0, 0, 0),
        metavar="X,Y,W,H",
        help="classify only this region of each picture, in pixels",
    )


def view(options: argparse.Namespace, **more: Any) -> View:
    """Return the view that --roi, --resize and --interpolation ask for, with `more` of its fields."""
    return View(options.roi, options.resize, interpolation=options.interpolation, **more)


def _roi(text: str) -> tuple[int, ...]:
    try:
        roi = tuple(map(int, text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not X,Y,W,H in whole pixels") from error
    try:
        View(roi)
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return roi


def add_reporting(parser: argparse.ArgumentParser) -> None:
    """Add which classes are reported, for `reporting`."""
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="classes per picture (default: 5)"
    )
    parser.add_argument(
        "--score-threshold",
        type=fraction,
        default=0.0,
        metavar="SCORE",
        help="least score of a reported class (default: %(default)s)",
    )
    for option, which in (
        ("--class-allow", "only this class"),
        ("--class-deny", "never this class"),
    ):
        parser.add_argument(
            option,
            action="append",
            default=[],
            metavar="NAME",
            help=f"report {which}; may be given several times",
        )


def reporting(options: argparse.Namespace, **more: Any) -> Reporting:
    """Return what `add_reporting` and --temperature ask for, with `more` of its fields."""
    return Reporting(
        options.top_k,
        options.score_threshold,
        temperature=options.temperature,
        class_allow=tuple(options.class_allow),
        class_deny=tuple(options.class_deny),
        **more,
    )


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Add --mean, --scale and --channel-order of an ONNX model."""
    parser.add_argument(
        "--mean",
        type=_numbers,
        default=(),
        metavar="R,G,B",
        help="subtracted from an ONNX model's pixels of 0 to 255 (default: ImageNet's)",
    )
    parser.add_argument(
        "--scale",
        type=_numbers,
        default=(),
        metavar="R,G,B",
        help="multiplied with the difference (default: ImageNet's)",
    )
    parser.add_argument(
        "--channel-order",
        choices=CHANNEL_ORDERS,
        default="auto",
        help="channel order of an ONNX model (auto: from its metadata, else rgb)",
    )


def _numbers(text: str) -> tuple[float, ...]:
    """Parse one number, or three with commas between them."""
    values = tuple(map(_number, text.split(",")))
    if len(values) not in (1, 3) or not all(map(isfinite, values)):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not one number, or three with commas between them: R,G,B"
        )
    return values


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)


def positive_float(text: str) -> float:
    """Parse a number above zero."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above zero")
    return value


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown word: the likely one and the choices."""
    known = list(known)
    close = nearest(word, known)
    likely = f"; did you mean '{close}'?" if close else ":"
    return f"{likely} There are {', '.join(known)}"


def check_report(path: Path | None) -> None:
    """Check before long work that an HTML report can be written there.

    Raises:
        UsageError: the name has another suffix.
        DependencyError: matplotlib is missing.

    """
    if path is not None:
        if path.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"'{path}' must end in .html")
        need("matplotlib", "pip install matplotlib")


def check_plot(path: Path | None) -> None:
    """Check before long work that a plot can be drawn there.

    Raises:
        UsageError: the name does not have a picture's suffix.
        DependencyError: matplotlib is missing.

    """
    if path is not None:
        if path.suffix.lower() not in _PLOTS:
            raise UsageError(f"'{path}' must end in {', '.join(_PLOTS)}")
        need("matplotlib", "pip install matplotlib")


def model_from(
    options: argparse.Namespace, model: str | None = None, backend: str | None = None
) -> Model:
    """Open the model that the options of `add_model` ask for, downloaded if necessary.

    Args:
        options: the command line.
        model: instead of --model.
        backend: instead of --backend.

    Raises:
        UsageError: there is no such model.

    """
    spec = model_spec(options, model, backend)
    with download_bar(spec.model or spec.model_path) as progress, _in_words_of_the_command():
        return spec.open(progress)


def model_spec(
    options: argparse.Namespace, model: str | None = None, backend: str | None = None
) -> ModelSpec:
    """Return what `model_from` opens; takes the same arguments and raises the same errors."""
    model = model or options.model
    is_size = is_known(model)
    if not is_size and Path(model).suffix == "":
        raise UsageError(
            f"'{model}' is not a model{did_you_mean(model, MODEL_NAMES)}, or a model file"
        )
    return ModelSpec(
        model if is_size else "",
        "" if is_size else model,
        options.labels,
        backend or options.backend,
        BackendOptions(
            bpu_runtime=options.bpu_runtime,
            color_range=options.color_range,
            activation=options.activation,
            onnx_providers=options.onnx_providers.split(","),
            onnx_threads=threads_beside(getattr(options, "workers", None) or cores()),
            mean=options.mean,
            scale=options.scale,
            channel_order=options.channel_order,
            model_name=options.model_name,
        ),
    )


@contextmanager
def _in_words_of_the_command() -> Iterator[None]:
    """Replace the API's parameter names in errors by the options that the user typed."""
    try:
        yield
    except RepghostError as error:
        text = str(error)
        for parameter, option in _OPTIONS.items():
            text = text.replace(parameter, option)
        raise type(error)(text) from error


def add_boxes(parser: argparse.ArgumentParser) -> None:
    """Add the options about a bag's boxes: the node's parameters of the same names."""
    parser.add_argument(
        "--detections", default="", metavar="TOPIC", help="classify the boxes on this topic"
    )
    parser.add_argument(
        "--detections-tolerance",
        type=positive_float,
        default=0.0,
        metavar="SECONDS",
        help="how far the stamps of an image and its boxes may lie apart (default: equal)",
    )
    parser.add_argument(
        "--detections-scale",
        type=positive_float,
        default=1.0,
        metavar="FACTOR",
        help="what the sides of a box are multiplied by (default: %(default)s)",
    )
    parser.add_argument(
        "--detections-classes",
        nargs="+",
        default=(),
        metavar="CLASS",
        help="the detector's classes to classify (default: all)",
    )
    parser.add_argument(
        "--detections-max",
        type=positive,
        default=BoxChoice().most,
        metavar="N",
        help="most boxes of an image (default: %(default)s)",
    )


def box_choice(options: argparse.Namespace) -> BoxChoice:
    """Return which boxes the options choose, and how much around them."""
    classes = frozenset(options.detections_classes)
    return BoxChoice(options.detections_scale, classes, options.detections_max)


def matcher(options: argparse.Namespace) -> Matcher[Any, Any]:
    """Return what matches images and boxes within the options' tolerance."""
    return Matcher(round(options.detections_tolerance * 1e9))
