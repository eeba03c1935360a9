# SPDX-License-Identifier: Apache-2.0
"""The library's front: open a model, give it pictures in any form, get results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from repghost_ros.backends.base import DEFAULTS, BackendOptions, Failed
from repghost_ros.engine.model import Answered, Model, ModelSpec, Outcome
from repghost_ros.engine.request import Request
from repghost_ros.engine.results import Reporting
from repghost_ros.engine.trunk import open_trunk
from repghost_ros.errors import BackendError, ParameterError
from repghost_ros.graphs.graph import load
from repghost_ros.graphs.head import cut
from repghost_ros.runs.batch import classify_each
from repghost_ros.runs.classified import Results
from repghost_ros.sources.given import Given, one_or_many
from repghost_ros.sources.pictures import Picture
from repghost_ros.vision.view import View
from repghost_ros.zoo.download import Progress

_SUFFIXES = (".onnx", ".bin")


class Classifier(Model):
    """An opened model; close it, or use it in a `with` statement. `open_model` makes one.

    Its methods take one picture or an iterable of pictures. A picture is a path; the bytes of an image
    file; a uint8 array of BGR (height, width, 3), as OpenCV reads it, BGRA or gray (height, width); or
    a PIL image. In an iterable, the path of a folder or video stands for all pictures in it. Several
    pictures are read and classified in parallel, on all cores, in batches where the model takes them.

    Any number of threads may call the methods.
    """

    def __enter__(self) -> Classifier:
        return self

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, pictures: Given, view: View = ..., reporting: Reporting = ...
    ) -> Results: ...

    @overload
    def classify(
        self, pictures: Iterable[Given], view: View = ..., reporting: Reporting = ...
    ) -> Iterator[Results]: ...

    def classify(
        self,
        pictures: Given | Iterable[Given],
        view: View = View(),
        reporting: Reporting = Reporting(),
    ) -> Results | Iterator[Results]:
        """Classify one picture, or several one after another.

        Args:
            pictures: see the class.
            view: which part of a picture the model sees, and how it is fitted to the input.
            reporting: which classes are reported.

        Returns:
            of one picture its classes, best first; of several an iterator over those, in order, that
            reads only a few pictures ahead. Where one of several cannot be read, its results are empty
            and have an `error`.

        Raises:
            FrameError: the picture cannot be classified.
            SourceError: the path does not exist, is a folder or video, or a folder holds no pictures.
            OSError: its file cannot be read.
            BackendError: the device failed, or the model is closed.
            ParameterError: the model lacks a class that `reporting` names.

        """
        _check(view, reporting)
        given = one_or_many(pictures)
        if isinstance(given, Picture):
            return Results.of(_answer(self, given, view, reporting))
        return self._classified(given, view, reporting)

    def scores(
        self,
        pictures: Given | Iterable[Given],
        view: View = View(),
        *,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Return the probability of every class, in the order of `labels`.

        Args:
            pictures: see the class.
            view: which part of a picture the model sees, and how it is fitted to the input.
            temperature: divides the logits; above 1 scores are less sure.

        Returns:
            float64 (classes,) of one picture, (pictures, classes) of several.

        Raises:
            Exception: as `classify`, and for the first picture that cannot be read.

        """
        reporting = Reporting(temperature=temperature)
        outputs = _outputs(self, pictures, view)
        scores = [
            reporting.scores(row, self.activation) for row in outputs.reshape(-1, self.classes)
        ]
        return np.array(scores, np.float64).reshape(outputs.shape)

    def features(self, pictures: Given | Iterable[Given], view: View = View()) -> np.ndarray:
        """Return what the model's last linear layer reads: a description of what a picture shows.

        Args:
            pictures: see the class.
            view: which part of a picture the model sees, and how it is fitted to the input.

        Returns:
            float32 (features,) of one picture, (pictures, features) of several.

        Raises:
            BackendError: it is not an ONNX model.
            ConversionError: it has no linear layer at its end.
            DependencyError: onnx is missing.
            Exception: as `scores`.

        """
        with self._lock:
            trunk = self._trunk
        return _outputs(trunk, pictures, view)

    @cached_property
    def _trunk(self) -> Model:
        self.check_open()
        if self.path.suffix.lower() != ".onnx":
            raise BackendError(
                f"'{self.path.name}' was compiled, so its features cannot be read: open the ONNX "
                "model, with backend='onnx'"
            )
        return open_trunk(cut(load(self.path), self.path.name), self.spec.options)

    def _classified(
        self, pictures: Iterator[Picture], view: View, reporting: Reporting
    ) -> Iterator[Results]:
        for outcome in classify_each(self, pictures, Picture.frame, view, reporting):
            if isinstance(outcome, Failed):
                raise outcome.error
            yield Results.of(outcome)

    def close(self) -> None:
        """Unload the model; further calls do nothing."""
        super().close()
        with self._lock:
            trunk = self.__dict__.pop("_trunk", None)
        if trunk is not None:
            trunk.close()


def open_model(
    model: str | int | os.PathLike[str] = "demo",
    *,
    model_path: str | os.PathLike[str] = "",
    labels_path: str | os.PathLike[str] = "",
    backend: str = "auto",
    options: BackendOptions = DEFAULTS,
    progress: Progress | None = None,
) -> Classifier:
    """Open a model: find or download its file, load it, and match it with its labels.

    Args:
        model: `demo`, the road signs; a name of the zoo, such as `150` (RepGhost's size) or
            `repvit_m0_9`, see `repghost models`; or a model file, .onnx or .bin.
        model_path: a model file, also one that is called like a model of the zoo.
        labels_path: file with the names of its classes, see docs/models.md; by default those in the
            model file, else ImageNet's.
        backend: `bpu`, `onnx`, `sim` (the vendor's simulator), or `auto`: the BPU where there is one.
        options: how to run it.
        progress: called during a download with the bytes received so far and in total.

    Raises:
        BackendError: no usable runtime, or the model is corrupt or no classifier.
        StoreError: the model is neither here nor available elsewhere.
        LabelsError: the labels cannot be read or do not fit the model.

    """
    name, path = _named(model)
    path = os.fspath(model_path) or path
    spec = ModelSpec(name, path, os.fspath(labels_path), backend, options)
    opened = spec.open(progress)
    return Classifier(
        **{entry.name: getattr(opened, entry.name) for entry in fields(opened) if entry.init}
    )


def _named(model: str | int | os.PathLike[str]) -> tuple[str, str]:
    """Return a model's name and file, of which one is empty."""
    is_file = isinstance(model, os.PathLike) or Path(str(model)).suffix.lower() in _SUFFIXES
    return ("", str(model)) if is_file else (str(model), "")


def _check(view: View, reporting: Reporting) -> None:
    for name, given, kind in (("view", view, View), ("reporting", reporting, Reporting)):
        if not isinstance(given, kind):
            raise ParameterError(
                f"{name} cannot be a {type(given).__name__}: it is a {kind.__name__}; name the "
                "arguments, such as classify(picture, reporting=Reporting(top_k=1))"
            )


def _answer(
    model: Model, picture: Picture, view: View, reporting: Reporting
) -> Answered[Request[Picture]]:
    """Return the answer for one picture; see Classifier for the errors."""
    return _answered(model.run_one(Request(picture, Picture.frame, view, reporting)))


def _answered(outcome: Outcome[Request[Picture]]) -> Answered[Request[Picture]]:
    """Return an outcome that is an answer, or raise its error."""
    if isinstance(outcome, Answered):
        return outcome
    raise outcome.error


def _outputs(model: Model, pictures: Given | Iterable[Given], view: View) -> np.ndarray:
    """Return a model's outputs, float32 (outputs,) or (pictures, outputs)."""
    reporting = Reporting(top_k=1)
    _check(view, reporting)
    given = one_or_many(pictures)
    if isinstance(given, Picture):
        return _answer(model, given, view, reporting).logits
    outcomes = classify_each(model, given, Picture.frame, view, reporting)
    rows = [_answered(outcome).logits for outcome in outcomes]
    return np.array(rows, np.float32).reshape(len(rows), model.classes)
