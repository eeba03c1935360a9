"""Classify image files, folders and videos on the BPU or with ONNX Runtime."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from repghost_ros.cli.common import (
    add_model,
    open_model,
    positive,
    print_error,
    with_bar,
)
from repghost_ros.errors import OutputError
from repghost_ros.model import Model
from repghost_ros.results import Reporting
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.pictures import VIDEOS, Picture, find, pictures
from repghost_ros.stream.job import Job
from repghost_ros.vision.overlay import draw_overlay, picture
from repghost_ros.vision.view import View

HELP = "classify images, folders and videos"
_VIDEO_FPS = 30.0  # of an annotated video whose source does not say


class ClassifyReport:
    """Classifies (and draws) the pictures while it is read.

    Args:
        model: the opened model; closed at the end.
        jobs: of the pictures, in order.
        saver: writes them, or None.

    """

    def __init__(self, model: Model, jobs: Iterable[Job[Picture]], saver: _Saver | None) -> None:
        self.failed = False
        self._model = model
        self._jobs = jobs
        self._saver = saver

    def text(self) -> Iterator[str]:
        """The classes of every picture; what could not be classified is said on stderr."""
        for job in self._classified():
            if job.error is None:
                yield f"{job.message.name}  ({_inference_ms(job):.2f} ms)"
                for result in job.results:
                    yield f"  {result.score:7.2%}  {result.class_id}"
        print(f"{self._model.path.name} on {self._model.runtime}", file=sys.stderr)

    def as_json(self) -> dict[str, Any]:
        """A dict a picture, with its classes or the error."""
        return {
            "model": str(self._model.path),
            "backend": self._model.runtime,
            "results": [_as_json(job) for job in self._classified()],
        }

    def _classified(self) -> Iterator[Job[Picture]]:
        try:
            for job in self._jobs:
                if job.error is not None:
                    print_error(f"{job.message.name}: {job.error}")
                    self.failed = True
                elif self._saver is not None:
                    self._saver.save(job)
                yield job
        finally:
            if self._saver is not None:
                self._saver.close()
            self._model.close()


def _inference_ms(job: Job[Picture]) -> float:
    assert job.converted is not None
    assert job.inferred is not None
    return (job.inferred - job.converted) * 1e3


def _as_json(job: Job[Picture]) -> dict[str, Any]:
    about = {"path": str(job.message.path), "frame": job.message.index}
    if job.error is not None:
        return {**about, "error": str(job.error)}
    return {
        **about,
        "inference_ms": round(_inference_ms(job), 3),
        "results": [asdict(result) for result in job.results],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost classify`."""
    parser.add_argument("path", nargs="+", type=Path, metavar="IMAGE|DIR|VIDEO")
    add_model(parser)
    parser.add_argument("--top-k", type=positive, default=5, metavar="K", help="classes a picture")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="write the pictures there, annotated"
    )


def run(options: argparse.Namespace) -> ClassifyReport:
    """Find the pictures and open the model."""
    files = find(options.path)
    model = open_model(options)
    saver = _Saver(options.save, files) if options.save else None
    jobs: Iterable[Job[Picture]] = classify_each(
        model,
        pictures(files),
        Picture.frame,
        View(resize=options.resize),
        Reporting(options.top_k),
        workers=options.workers,
    )
    if options.json or not sys.stdout.isatty():  # a bar would come between the answers
        total = None if any(file.suffix.lower() in VIDEOS for file in files) else len(files)
        jobs = with_bar(jobs, total, "picture")
    return ClassifyReport(model, jobs, saver)


class _Saver:
    """Writes annotated pictures and videos under their own names into one folder."""

    def __init__(self, folder: Path, originals: Iterable[Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._taken = {path.resolve() for path in originals}
        self._video: tuple[Path, Any] | None = None

    def save(self, job: Job[Picture]) -> None:
        """Draw one picture.

        Raises:
            OutputError: it cannot be written.

        """
        assert job.frame is not None
        shown, rgb = job.message, picture(job.frame)
        draw_overlay(rgb, job.results)
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        if shown.index is not None:
            self._writer(shown.path, bgr).write(bgr)
            return
        path = self._free(shown.path.stem, ".png" if shown.path.suffix == ".png" else ".jpg")
        if not cv2.imwrite(str(path), bgr):
            raise OutputError(f"'{path}' cannot be written")

    def close(self) -> None:
        """Finish the video that is being written."""
        if self._video is not None:
            self._video[1].release()

    def _writer(self, path: Path, bgr: np.ndarray) -> Any:
        if self._video is None or self._video[0] != path:
            self.close()
            source = cv2.VideoCapture(str(path))
            fps = source.get(cv2.CAP_PROP_FPS) or _VIDEO_FPS
            source.release()
            target = self._free(path.stem, ".mp4")
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = (path, cv2.VideoWriter(str(target), codec, fps, bgr.shape[1::-1]))
            if not self._video[1].isOpened():
                raise OutputError(f"'{target}' cannot be written")
        return self._video[1]

    def _free(self, stem: str, suffix: str) -> Path:
        """A name of no original and no other picture of this run: folders may repeat names."""
        path, number = self._folder / f"{stem}{suffix}", 1
        while path.resolve() in self._taken:
            path, number = self._folder / f"{stem}_{number}{suffix}", number + 1
        self._taken.add(path.resolve())
        return path
