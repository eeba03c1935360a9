"""Classify image files, folders and videos on the BPU or with ONNX Runtime."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from repghost_ros.cli.common import (
    add_json,
    add_model,
    open_model,
    positive,
    print_error,
    print_json,
    with_bar,
)
from repghost_ros.errors import SourceError
from repghost_ros.results import Reporting, Result
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.pictures import VIDEOS, Picture, find, pictures
from repghost_ros.stream.job import Job
from repghost_ros.vision.overlay import draw_overlay, picture
from repghost_ros.vision.view import View

HELP = "classify images, folders and videos"
_VIDEO_FPS = 30.0  # of an annotated video whose source does not say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost classify`."""
    parser.add_argument("path", nargs="+", type=Path, metavar="IMAGE|DIR|VIDEO")
    add_model(parser)
    parser.add_argument("--top-k", type=positive, default=5, metavar="K", help="classes a picture")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="write the pictures there, annotated"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print (and draw) the best classes of every picture; 1 if any could not be classified."""
    files = find(options.path)
    model = open_model(options)
    saver = _Saver(options.save, files) if options.save else None
    answers: list[dict[str, Any]] = []
    failed = False
    jobs: Iterable[Job[Picture]] = classify_each(
        model,
        pictures(files),
        Picture.frame,
        View(resize=options.resize),
        Reporting(options.top_k),
        workers=options.workers,
    )
    total = None if any(file.suffix.lower() in VIDEOS for file in files) else len(files)
    try:
        if options.json or not sys.stdout.isatty():  # a bar would come between the answers
            jobs = with_bar(jobs, total, "picture")
        for job in jobs:
            if job.error is not None:
                print_error(f"{job.message.name}: {job.error}")
                failed = True
                continue
            if options.json:
                answers.append(_as_json(job))
            else:
                print(f"{job.message.name}  ({_inference_ms(job):.2f} ms)")
                for result in job.results:
                    print(f"  {result.score:7.2%}  {result.class_id}")
            if saver is not None:
                saver.save(job.message, job.results)
    finally:
        if saver is not None:
            saver.close()
        model.close()
    if options.json:
        about = {"model": str(model.path), "backend": model.runtime}
        print_json({**about, "pictures": answers})
    else:
        print(f"{model.path.name} on {model.runtime}", file=sys.stderr)
    return int(failed)


def _inference_ms(job: Job[Picture]) -> float:
    assert job.converted is not None
    assert job.inferred is not None
    return (job.inferred - job.converted) * 1e3


def _as_json(job: Job[Picture]) -> dict[str, Any]:
    return {
        "path": str(job.message.path),
        "frame": job.message.index,
        "inference_ms": round(_inference_ms(job), 3),
        "results": [asdict(result) for result in job.results],
    }


class _Saver:
    """Writes annotated pictures and videos under their own names into one folder."""

    def __init__(self, folder: Path, originals: Iterable[Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._taken = {path.resolve() for path in originals}
        self._video: tuple[Path, Any] | None = None

    def save(self, shown: Picture, results: Iterable[Result]) -> None:
        """Draw one picture.

        Raises:
            SourceError: it cannot be written.

        """
        rgb = picture(shown.frame())
        draw_overlay(rgb, results)
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        if shown.index is not None:
            self._writer(shown.path, bgr).write(bgr)
            return
        path = self._free(shown.path.stem, ".png" if shown.path.suffix == ".png" else ".jpg")
        if not cv2.imwrite(str(path), bgr):
            raise SourceError(f"'{path}' cannot be written")

    def close(self) -> None:
        """Finish the video in work."""
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
                raise SourceError(f"'{target}' cannot be written")
        return self._video[1]

    def _free(self, stem: str, suffix: str) -> Path:
        """A name of no original and no other picture of this run: folders may repeat names."""
        path, number = self._folder / f"{stem}{suffix}", 1
        while path.resolve() in self._taken:
            path, number = self._folder / f"{stem}_{number}{suffix}", number + 1
        self._taken.add(path.resolve())
        return path
