# SPDX-License-Identifier: Apache-2.0
"""Classify images, folders, videos, cameras and streams on the BPU or with ONNX Runtime.

A source is a file or folder, a camera (0 or /dev/video0), a URL (rtsp, http and others), or - for
standard input: a picture, JPEGs one after another, or a video. A camera or stream runs until it is
interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_model,
    add_reporting,
    open_model,
    positive,
    positive_float,
    reporting,
    with_bar,
)
from repghost_ros.cli.saver import Saver
from repghost_ros.cli.terminal import print_error
from repghost_ros.engine.job import Job
from repghost_ros.engine.model import Model
from repghost_ros.errors import UsageError
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.live import is_live, live_pictures
from repghost_ros.sources.pictures import Picture, find, is_video, pictures
from repghost_ros.vision.view import View

HELP = "classify images, folders, videos, cameras and streams"
_RATE_OVER = 1.0  # seconds, of the live line's rate


class ClassifyReport:
    """Classifies (and draws) the pictures while it is iterated over.

    Args:
        model: the opened model; closed at the end.
        jobs: one per picture, in order.
        saver: writes them, or None.
        is_live: whether an interrupt is the normal end and a terminal shows only the last answer.

    """

    def __init__(
        self,
        model: Model,
        jobs: Iterable[Job[Picture]],
        saver: Saver | None,
        *,
        is_live: bool = False,
    ) -> None:
        self.failed = False
        self.is_endless = is_live
        self._model = model
        self._jobs = jobs
        self._saver = saver

    def text(self) -> Iterator[str]:
        """The classes of every picture; failures are reported on stderr."""
        shown = _LiveLine() if self.is_endless and sys.stdout.isatty() else None
        for job in self._classified():
            if job.error is not None:
                continue
            if shown is not None:
                shown.show(job)
            else:
                note = f", {job.frame.note}" if job.frame is not None and job.frame.note else ""
                yield f"{job.message.name}  ({_inference_ms(job):.2f} ms){note}"
                for result in job.results:
                    yield f"  {result.score:7.2%}  {result.class_id}"
        print(f"{self._model.path.name} on {self._model.runtime}", file=sys.stderr)

    def as_json(self) -> dict[str, Any]:
        """One dict per picture, with its classes or the error."""
        return {
            "model": str(self._model.path),
            "backend": self._model.runtime,
            "results": self._answers(),
        }

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        try:
            for job in self._classified():
                answers.append(_as_json(job))
        except KeyboardInterrupt:
            if not self.is_endless:
                raise
        return answers

    def _classified(self) -> Iterator[Job[Picture]]:
        try:
            for job in self._jobs:
                if job.error is not None:
                    self._refuse(job.message, str(job.error))
                elif self._saver is not None:
                    self._saver.save(job)
                yield job
        except KeyboardInterrupt:
            if not self.is_endless:
                raise
        finally:
            try:
                if self._saver is not None:
                    self._saver.close()
            finally:
                self._model.close()

    def _refuse(self, shown: Picture, reason: str) -> None:
        self.failed = True
        print_error(reason if shown.source in reason else f"{shown.name}: {reason}")


class _LiveLine:
    """The last answer and the current rate, on one line of the terminal."""

    def __init__(self) -> None:
        self._begin, self._frames, self._rate = time.monotonic(), 0, ""

    def show(self, job: Job[Picture]) -> None:
        """Overwrite the previous answer."""
        self._frames += 1
        elapsed = time.monotonic() - self._begin
        if elapsed >= _RATE_OVER:
            self._rate = f"{self._frames / elapsed:5.1f}/s"
            self._begin, self._frames = time.monotonic(), 0
        best = ", ".join(f"{each.class_id} {each.score:.0%}" for each in job.results[:2])
        print(f"\r\x1b[K{job.message.name}  {self._rate}  {best}", end="", flush=True)


def _inference_ms(job: Job[Picture]) -> float:
    assert job.converted is not None
    assert job.inferred is not None
    return (job.inferred - job.converted) * 1e3


def _as_json(job: Job[Picture]) -> dict[str, Any]:
    about = {"path": job.message.source, "frame": job.message.index}
    if job.error is not None:
        return {**about, "error": str(job.error)}
    assert job.frame is not None
    return {
        **about,
        **({"note": job.frame.note} if job.frame.note else {}),
        "inference_ms": round(_inference_ms(job), 3),
        "results": [asdict(result) for result in job.results],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost classify`."""
    parser.add_argument("source", nargs="+", metavar="IMAGE|DIR|VIDEO|CAMERA|URL|-")
    add_model(parser)
    add_reporting(parser)
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


def run(options: argparse.Namespace) -> ClassifyReport:
    """Find the pictures and open the model."""
    live = [source for source in options.source if is_live(source)]
    if live and len(options.source) > 1:
        raise UsageError(f"'{live[0]}' may have no end: name it alone")
    if options.max_rate and not live:
        raise UsageError("--max-rate is of a camera or stream; of videos there is --every")
    files: list[Path] = []
    if not live:
        written = {options.save.resolve()} if options.save else set()
        files = find(map(Path, options.source), without=written)
    model = open_model(options)
    jobs: Iterable[Job[Picture]] = classify_each(
        model,
        live_pictures(live[0], every=options.every, max_rate=options.max_rate or 0.0)
        if live
        else pictures(files, every=options.every),
        Picture.frame,
        View(resize=options.resize),
        reporting(options),
        # A live camera's answers must not lag behind frames queued for other workers.
        workers=options.workers or (1 if live else None),
    )
    if not live and (options.json or not sys.stdout.isatty()):
        # On a terminal a bar would get between the answers.
        total = None if any(map(is_video, files)) else len(files)
        jobs = with_bar(jobs, total, "picture")
    saver = Saver(options.save, files) if options.save else None
    return ClassifyReport(model, jobs, saver, is_live=bool(live))
