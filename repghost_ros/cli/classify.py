# SPDX-License-Identifier: Apache-2.0
"""Classify images, folders, videos, cameras and streams on the BPU or with ONNX Runtime.

A source is a file or folder, a camera (0 or /dev/video0), a URL (rtsp, http and others), or - for
standard input: a picture, JPEGs one after another, or a video. A camera or stream runs until it is
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from repghost_ros.cli import classify_boxes
from repghost_ros.cli.common import (
    add_model,
    add_reporting,
    add_view,
    model_from,
    positive,
    positive_float,
    reporting,
    view,
)
from repghost_ros.cli.report import Latest, Piece
from repghost_ros.cli.saver import Saver
from repghost_ros.cli.terminal import with_bar
from repghost_ros.engine.model import Answered, Model, Outcome
from repghost_ros.engine.request import Request
from repghost_ros.errors import UsageError
from repghost_ros.runs.batch import classify_each
from repghost_ros.runs.classified import Results
from repghost_ros.sources.live import is_live, live_pictures
from repghost_ros.sources.pictures import Picture, find, is_video, pictures
from repghost_ros.vision.view import View

Classified = Outcome[Request[Picture]]
HELP = "classify images, folders, videos, cameras and streams"
_RATE_OVER = 1.0  # seconds, of the live line's rate
_log = logging.getLogger(__name__)


class ClassifyReport:
    """Classifies (and draws) the pictures while it is iterated over.

    Args:
        model: the opened model; closed at the end.
        outcomes: one per picture, in order.
        view: how the model sees pictures.
        saver: writes them, or None.
        is_live: whether an interrupt is the normal end and a terminal shows only the last answer.

    """

    def __init__(
        self,
        model: Model,
        outcomes: Iterable[Classified],
        view: View,
        saver: Saver | None,
        *,
        is_live: bool = False,
    ) -> None:
        self.failed = False
        self.is_endless = is_live
        self._model = model
        self._outcomes = outcomes
        self._view = view
        self._saver = saver
        self._saved: Path | None = None
        """Where the latest picture was drawn."""

    def text(self) -> Iterator[Piece]:
        """Yield the classes of every picture; errors are logged."""
        rate = _Rate()
        for outcome in self._classified():
            if isinstance(outcome, Answered):
                text = _text(outcome)
                yield Latest(_line(outcome, rate.count()), text) if self.is_endless else text

    def as_json(self) -> dict[str, Any]:
        """Return one dict per picture, with its classes or the error."""
        return {
            "model": str(self._model.path),
            "backend": self._model.runtime,
            "resize": self._view.policy(self._model.resize),
            "results": self._answers(),
        }

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        try:
            for outcome in self._classified():
                saved = {"saved": str(self._saved)} if self._saved else {}
                answers.append(_as_json(outcome) | saved)
                self._saved = None
        except KeyboardInterrupt:
            if not self.is_endless:
                raise
        return answers

    def _classified(self) -> Iterator[Classified]:
        try:
            with self._model, closing(self._saver) if self._saver else nullcontext():
                for outcome in self._outcomes:
                    if not isinstance(outcome, Answered):
                        self.failed = True
                        _log.error(outcome.request.message.complaint(str(outcome.error)))
                    elif self._saver is not None:
                        self._saved = self._saver.save(outcome)
                    yield outcome
        except KeyboardInterrupt:
            if not self.is_endless:
                raise
        _log.info(self._model.about(self._view))


class _Rate:
    """The current rate of a stream, measured over the last second."""

    def __init__(self) -> None:
        self._begin, self._frames, self._shown = time.monotonic(), 0, ""

    def count(self) -> str:
        """Count one frame; return the rate as text."""
        self._frames += 1
        elapsed = time.monotonic() - self._begin
        if elapsed >= _RATE_OVER:
            self._shown = f"{self._frames / elapsed:5.1f}/s"
            self._begin, self._frames = time.monotonic(), 0
        return self._shown


def _line(answered: Answered[Request[Picture]], rate: str) -> str:
    best = ", ".join(f"{result.class_id} {result.score:.0%}" for result in answered.results[:2])
    return f"{answered.request.message.name}  {rate}  {best}"


def _text(answered: Answered[Request[Picture]]) -> str:
    note = f", {answered.note}" if answered.note else ""
    head = f"{answered.request.message.name}  ({_inference_ms(answered):.2f} ms){note}"
    return "\n".join([head, *Results.of(answered).lines()])


def _inference_ms(answered: Answered[Request[Picture]]) -> float:
    return (answered.times.inferred - answered.times.converted) * 1e3


def _as_json(outcome: Classified) -> dict[str, Any]:
    entry = Results.of(outcome).to_dict()
    if isinstance(outcome, Answered):
        entry["inference_ms"] = round(_inference_ms(outcome), 3)
    return entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost classify`."""
    parser.add_argument("source", nargs="+", metavar="IMAGE|DIR|VIDEO|CAMERA|URL|-")
    add_model(parser)
    add_view(parser)
    add_reporting(parser)
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="classify the boxes of images: COCO's .json, YOLO's .txt or a folder of such",
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="write annotated pictures there")
    parser.add_argument(
        "--every", type=positive, default=1, metavar="N", help="classify only every Nth frame"
    )
    parser.add_argument(
        "--max-rate",
        type=positive_float,
        metavar="HZ",
        help="most frames per second to take from a camera or stream",
    )


def run(options: argparse.Namespace) -> ClassifyReport | classify_boxes.BoxesReport:
    """Find the pictures and open the model."""
    live = [source for source in options.source if is_live(source)]
    if live and len(options.source) > 1:
        raise UsageError(f"'{live[0]}' is live and may never end: give no other source")
    if options.max_rate and not live:
        raise UsageError("--max-rate is for cameras and streams; for videos use --every")
    if options.boxes:
        if live:
            raise UsageError(f"--boxes is for files, not for '{live[0]}'")
        if any(options.roi):
            raise UsageError("--roi is for whole pictures and cannot be used with --boxes")
        return classify_boxes.run(options)
    files: list[Path] = []
    if not live:
        written = {options.save.resolve()} if options.save else set()
        files = find(map(Path, options.source), without=written)
    model = model_from(options)
    seen = view(options)
    outcomes: Iterable[Classified] = classify_each(
        model,
        live_pictures(live[0], every=options.every, max_rate=options.max_rate or 0.0)
        if live
        else pictures(files, every=options.every),
        Picture.frame,
        seen,
        reporting(options),
        # A live camera's answers must not lag behind frames queued for other workers.
        workers=options.workers or (1 if live else None),
    )
    if not live and (options.json or not sys.stdout.isatty()):
        # On a terminal a bar would get between the answers.
        total = None if any(map(is_video, files)) else len(files)
        outcomes = with_bar(outcomes, total, "picture")
    sources = map(Path, options.source)
    saver = Saver(options.save, files, sources) if options.save else None
    return ClassifyReport(model, outcomes, seen, saver, is_live=bool(live))
