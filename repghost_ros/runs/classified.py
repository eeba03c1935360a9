# SPDX-License-Identifier: Apache-2.0
"""The results of one picture, as programs, people and JSON get them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.overlay import annotated
from repghost_ros.engine.request import Request
from repghost_ros.engine.results import Result
from repghost_ros.errors import FrameError
from repghost_ros.sources.pictures import Picture
from repghost_ros.vision.view import View

_PICTURE = Picture("picture")


class Results(tuple[Result, ...]):
    """The reported classes of one picture, best first: a tuple of Result that knows its picture.

    Printed, it is the picture's name and a line for each class.
    """

    picture: Picture
    """What was classified; `name` is its path, or such as `picture 3`."""
    view: View
    """What of it the model saw."""
    error: str
    """Why there are no results; empty if the picture was classified."""
    note: str
    """What was lost on the way though the picture was classified."""

    def __new__(
        cls,
        results: Iterable[Result] = (),
        picture: Picture = _PICTURE,
        view: View = View(),
        *,
        error: str = "",
        note: str = "",
    ) -> Results:
        """See the attributes."""
        made = super().__new__(cls, results)
        made.picture, made.view, made.error, made.note = picture, view, error, note
        return made

    @classmethod
    def of(cls, outcome: Outcome[Request[Picture]]) -> Results:
        """Return the results of an outcome, or its error."""
        request = outcome.request
        if isinstance(outcome, Answered):
            return cls(outcome.results, request.message, request.view, note=outcome.note)
        error = str(outcome.error) or type(outcome.error).__name__
        return cls((), request.message, request.view, error=error)

    @property
    def best(self) -> Result:
        """The best class.

        Raises:
            FrameError: the picture could not be classified, or no class reaches the threshold.

        """
        if not self:
            raise FrameError(self.error or f"{self.picture.name}: no class reaches score_threshold")
        return self[0]

    def to_dict(self) -> dict[str, Any]:
        """Return what can be written as JSON: `path`, `frame`, and `results` or `error`."""
        about = {"path": self.picture.source, "frame": self.picture.index}
        if self.error:
            return {**about, "error": self.error}
        note = {"note": self.note} if self.note else {}
        return {**about, **note, "results": [asdict(result) for result in self]}

    def draw(self) -> np.ndarray:
        """Return what the model saw with the classes on it, as BGR uint8 (height, width, 3).

        A picture that came from a file is read again.

        Raises:
            FrameError: the picture cannot be read.
            OSError: its file cannot be read.

        """
        frame = self.view.crop(self.picture.frame())
        return annotated(frame, self, self.view.source_color_range)

    def lines(self) -> Iterator[str]:
        """Yield a line of text for each class, or the error."""
        if self.error:
            yield f"  {self.error}"
        for result in self:
            yield f"  {result.score:7.2%}  {result.class_id}"

    def __str__(self) -> str:
        return "\n".join([self.picture.name, *self.lines()])

    def __repr__(self) -> str:
        shown = ", ".join(f"{result.score:.1%} {result.class_id}" for result in self)
        return f"<Results of {self.picture.name}: {shown or self.error or 'no class'}>"
