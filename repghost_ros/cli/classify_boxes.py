# SPDX-License-Identifier: Apache-2.0
"""`repghost classify --boxes`: the boxes of pictures instead of whole ones."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.cli.common import model_from, reporting, view
from repghost_ros.cli.saver import Saver
from repghost_ros.engine.model import Answered, Model, Region
from repghost_ros.engine.overlay import draw_boxes, picture
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import RepghostError
from repghost_ros.sources.boxes import BoxFile, read_boxes
from repghost_ros.sources.pictures import Picture, find, pictures
from repghost_ros.vision.frame import Frame
from repghost_ros.vision.view import View

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Boxed:
    """A picture and its boxes."""

    shown: Picture
    frame: Frame | None
    regions: Sequence[Region] = ()
    error: str = ""
    """Why there are no answers."""


class BoxesReport:
    """Classifies (and draws) the boxes while it is iterated over.

    Args:
        model: the opened model; closed at the end.
        shown: the pictures.
        boxes: where their boxes are.
        view: how each box is fitted to the model.
        reporting: which classes are reported.
        saver: writes the pictures, or None.

    """

    def __init__(
        self,
        model: Model,
        shown: Iterable[Picture],
        boxes: BoxFile,
        view: View,
        reporting: Reporting,
        saver: Saver | None,
    ) -> None:
        self.failed = False
        self._model = model
        self._shown = shown
        self._boxes = boxes
        self._view, self._reporting = view, reporting
        self._saver = saver

    def text(self) -> Iterator[str]:
        """Yield the boxes of every picture with their best classes; errors are logged."""
        for boxed in self._classified():
            if not boxed.error:
                yield "\n".join([boxed.shown.name, *map(_line, boxed.regions)])

    def as_json(self) -> dict[str, Any]:
        """Return one dict per box; a picture without answers has one with the error."""
        rows = []
        for boxed in self._classified():
            about = {"path": boxed.shown.source, "frame": boxed.shown.index}
            if boxed.error:
                rows.append({**about, "error": boxed.error})
            for number, region in enumerate(boxed.regions):
                rows.append({**about, "number": number, **_as_json(region)})
        return {
            "model": str(self._model.path),
            "backend": self._model.runtime,
            "resize": self._view.policy(self._model.resize),
            "results": rows,
        }

    def _classified(self) -> Iterator[_Boxed]:
        with self._model, closing(self._saver) if self._saver else nullcontext():
            for shown in self._shown:
                boxed = self._classify(shown)
                self._log(boxed)
                if self._saver is not None and boxed.frame is not None:
                    self._saver.write(shown, _drawn(boxed.frame, boxed.regions))
                yield boxed
        _log.info(self._model.about(self._view))

    def _classify(self, shown: Picture) -> _Boxed:
        try:
            frame = shown.frame().decoded()
            boxes = self._boxes.boxes(shown.source, frame.width, frame.height)
            regions = self._model.classify_regions(frame, boxes, self._view, self._reporting)
        except (RepghostError, OSError) as error:
            return _Boxed(shown, None, error=str(error))
        return _Boxed(shown, frame, regions)

    def _log(self, boxed: _Boxed) -> None:
        name = boxed.shown.name
        if boxed.error:
            self.failed = True
            _log.error(boxed.shown.complaint(boxed.error))
        elif not boxed.regions:
            _log.warning("%s: the file of boxes has none for it", name)
        for number, region in enumerate(boxed.regions):
            if region.error:
                self.failed = True
                _log.error("%s, box %d: %s", name, number, region.error)
            elif region.outcome is None:
                _log.warning("%s, box %d is not classified: too many boxes", name, number)


def _line(region: Region) -> str:
    box = region.box
    where = f"  {box.x:g},{box.y:g} {box.width:g}x{box.height:g} {box.class_id}".rstrip()
    return "  ".join(
        [where, *(f"{result.score:.2%} {result.class_id}" for result in region.results[:2])]
    )


def _as_json(region: Region) -> dict[str, Any]:
    error = {"error": region.error} if region.error else {}
    return {
        "box": asdict(region.box),
        **error,
        "results": [asdict(result) for result in region.results],
    }


def _drawn(frame: Frame, regions: Iterable[Region]) -> np.ndarray:
    """Return the picture with its boxes and their best classes, BGR uint8 (height, width, 3)."""
    rgb = picture(frame)
    answers = []
    for region in regions:
        if isinstance(region.outcome, Answered):
            roi = region.box.roi(frame.width, frame.height)
            answers.append((roi, region.results[0] if region.results else None))
    draw_boxes(rgb, answers)
    return np.ascontiguousarray(rgb[..., ::-1])


def run(options: argparse.Namespace) -> BoxesReport:
    """Find the pictures, read the boxes and open the model."""
    written = {options.save.resolve()} if options.save else set()
    files = find(map(Path, options.source), without=written)
    boxes = read_boxes(options.boxes)
    return BoxesReport(
        model_from(options),
        pictures(files, every=options.every),
        boxes,
        view(options),
        reporting(options),
        Saver(options.save, files, map(Path, options.source)) if options.save else None,
    )
