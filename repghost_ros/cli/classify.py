"""Classify image files, folders and videos on the BPU or with ONNX Runtime."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
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
from repghost_ros.model import Classifier
from repghost_ros.results import top_k
from repghost_ros.runs.batch import Result, classify_each
from repghost_ros.sources.pictures import VIDEOS, Picture, find, pictures
from repghost_ros.vision.overlay import draw_overlay, picture

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
    classifier = open_model(options)
    saver = _Saver(options.save, files) if options.save else None
    answers: list[dict[str, Any]] = []
    failed = False
    results: Iterable[Result[Picture]] = classify_each(
        classifier,
        pictures(files),
        Picture.frame,
        workers=options.workers,
        resize=options.resize,
    )
    total = None if any(file.suffix.lower() in VIDEOS for file in files) else len(files)
    try:
        if options.json or not sys.stdout.isatty():  # a bar would come between the answers
            results = with_bar(results, total, "picture")
        for result in results:
            try:
                if result.logits is None:
                    raise ValueError(result.error)
                scores = top_k(result.logits, options.top_k)
            except ValueError as error:  # the model may have answered nonsense
                print_error(f"{result.item.name}: {error}")
                failed = True
                continue
            best = [
                (classifier.labels[score.index], score.probability, score.index) for score in scores
            ]
            if options.json:
                answers.append(_as_json(result, best))
            else:
                print(f"{result.item.name}  ({result.inference_s * 1e3:.2f} ms)")
                for name, probability, _ in best:
                    print(f"  {probability:7.2%}  {name}")
            if saver is not None:
                saver.save(result.item, [(name, probability) for name, probability, _ in best])
    finally:
        if saver is not None:
            saver.close()
        classifier.close()
    if options.json:
        print_json({**_about(classifier), "pictures": answers})
    else:
        print(f"{classifier.path.name} on {classifier.runtime}", file=sys.stderr)
    return int(failed)


def _about(classifier: Classifier) -> dict[str, str]:
    return {"model": str(classifier.path), "backend": classifier.runtime}


def _as_json(result: Result[Picture], best: list[tuple[str, float, int]]) -> dict[str, Any]:
    return {
        "path": str(result.item.path),
        "frame": result.item.index,
        "inference_ms": round(result.inference_s * 1e3, 3),
        "results": [
            {"class_id": name, "index": index, "score": score} for name, score, index in best
        ],
    }


class _Saver:
    """Writes annotated pictures and videos under their own names into one folder."""

    def __init__(self, folder: Path, originals: Iterable[Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._taken = {path.resolve() for path in originals}
        self._video: tuple[Path, Any] | None = None

    def save(self, shown: Picture, results: list[tuple[str, float]]) -> None:
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
