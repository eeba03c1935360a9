# SPDX-License-Identifier: Apache-2.0
"""Train a whole network on, from the head that was taught to its features.

A fifth of the training pictures decides when to stop; the answers to these fit the temperature and the
threshold of `unknown`, as cross-validation does for a head alone. The pictures that are held out stay
the same, so that the two can be compared.
"""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from repghost_ros.backends.onnx import NormalizingSlot
from repghost_ros.engine.trunk import open_trunk
from repghost_ros.errors import ConversionError, need
from repghost_ros.graphs.head import Trunk
from repghost_ros.output import whole_file
from repghost_ros.teach.features import AS_IS, Augmented, Work
from repghost_ros.teach.labeled import folds
from repghost_ros.teach.logistic import Head, fit
from repghost_ros.teach.measures import (
    answers,
    fit_threshold,
    smoothed_temperature,
    softmax_rows,
    surprise,
)
from repghost_ros.teach.teaching import FOLDS, Measured, Step, Taught, assemble, hold_out
from repghost_ros.teach.trainable import INSTALL, Trainable
from repghost_ros.vision.nv12 import ResizePolicy, to_rgb
from repghost_ros.vision.view import View

_BATCH = 16
_PATIENCE = 6
"""Epochs without a gain after which it ends."""
_SMOOTHING = 0.1
_DECAY = 0.02
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    epochs: int = 20
    rate: float = 1e-4
    """The largest learning rate of the network's own weights; it falls to 0 like a cosine."""
    head_rate: float = 1e-3
    device: str = "auto"
    """auto: a GPU if torch has one."""


def finetune(
    trunk: Trunk,
    alone: Taught,
    recipe: Recipe,
    *,
    held_out: float = 0.2,
    mirrors: bool = True,
    state: Path | None = None,
    step: Step = lambda _: None,
    work: Work = lambda items, _: items,
) -> Taught:
    """Train the whole network, and measure it on the pictures that are held out.

    Args:
        trunk: what the head was taught to.
        alone: the head alone, and its pictures.
        recipe: how to train.
        held_out: as it was for the head.
        mirrors: whether a mirrored picture still shows its class.
        state: a file with the progress after each epoch, from which an interrupted training of the
            same pictures goes on; removed at the end.
        step: is called before each part of the work.
        work: wraps pictures that are worked through.

    Raises:
        ConversionError: the model cannot be trained, or no picture can decide when to stop.
        DependencyError: torch is missing.
        OutputError: the state cannot be written.

    """
    torch = need("torch", INSTALL)
    labeled = alone.labeled
    test = hold_out(labeled, held_out)
    train = np.flatnonzero(~test)
    truth = labeled.truth[train]
    fold = folds(truth, labeled.groups[train], FOLDS)
    stops = fold == 0
    if not stops.any():
        raise ConversionError(
            "nothing can decide when to stop, for all pictures of each class are of one recording or "
            "burst: record another, or teach a head alone, without --finetune"
        )
    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    looks = [Augmented(each.path, AS_IS, mirrors) for each in labeled.pictures]
    with _images(trunk, alone.resize) as read:
        training = _Training(torch, trunk, device, recipe, len(labeled.labels))
        key = _key(alone, recipe, train)
        fits, judged = train[~stops], train[stops]
        judge = _Judge([read(looks[at]) for at in judged], truth[stops])
        if not training.resume(state, key):
            step("fitting a head to begin with")
            seen = training.features([read(looks[at]) for at in work(fits, len(fits))])
            training.begin(fit(seen, truth[~stops], len(labeled.labels), alone.strength))
            training.keep(judge, 0)
        weights = 1.0 / np.bincount(truth[~stops], minlength=len(labeled.labels)).clip(1)
        while training.epoch < recipe.epochs and not training.is_done:
            epoch = training.epoch + 1
            step(f"epoch {epoch} of at most {recipe.epochs}, {training.words}")
            order = np.random.default_rng(epoch).permutation(len(fits))
            varied = (
                (replace(looks[fits[at]], number=epoch), truth[~stops][at])
                for at in work(order, len(order))
            )
            training.run(((read(look), target) for look, target in varied), weights, len(fits))
            training.keep(judge, epoch)
            training.save(state, key)
        training.restore()
        step(f"measuring epoch {training.best_epoch}")
        of_judged = training.logits(judge.images)
        at_test = np.flatnonzero(test)
        of_test = training.logits([read(looks[at]) for at in at_test])
    if state is not None:
        state.unlink(missing_ok=True)
    nothing = labeled.nothing
    temperature = smoothed_temperature(of_judged, judge.truth)
    threshold = alone.unknown_below
    shows = judge.truth != nothing
    if nothing is not None and shows.any() and not shows.all():
        scores = softmax_rows(of_judged, temperature)
        threshold = fit_threshold(scores[shows], judge.truth[shows], scores[~shows], nothing)

    def measured(logits: np.ndarray, truth: np.ndarray) -> Measured:
        scores = softmax_rows(logits, temperature)
        return Measured(truth, answers(scores, nothing, threshold), scores, nothing)

    head = training.head.cooled(temperature)
    return replace(
        alone,
        temperature=temperature,
        unknown_below=threshold,
        validated=measured(of_judged, judge.truth),
        held_out=measured(of_test, labeled.truth[at_test]),
        model=assemble(training.network.trunk(), head, labeled, train, alone.resize, threshold),
        alone=alone,
    )


class _Judge:
    """The pictures that decide when to stop."""

    def __init__(self, images: Sequence[np.ndarray], truth: np.ndarray) -> None:
        self.images, self.truth = images, truth

    def loss(self, logits: np.ndarray) -> float:
        return surprise(logits, self.truth, smoothed_temperature(logits, self.truth))


class _Training:
    """A network and a head in training."""

    def __init__(self, torch: Any, trunk: Trunk, device: str, recipe: Recipe, classes: int) -> None:
        self._torch, self._device, self._recipe = torch, device, recipe
        self.network = Trainable(trunk, device)
        self._kernel = torch.zeros(classes, trunk.features, device=device, requires_grad=True)
        self._bias = torch.zeros(classes, device=device, requires_grad=True)
        groups: list[dict[str, Any]] = [
            {"params": list(self.network.weights.values()), "lr": recipe.rate},
            {"params": [self._kernel, self._bias], "lr": recipe.head_rate},
        ]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=_DECAY)
        self._rates = [group["lr"] for group in groups]
        self.epoch = self.best_epoch = 0
        self._losses: list[float] = []
        self._best: dict[str, Any] = {}

    @property
    def head(self) -> Head:
        kernel, bias = self._kernel.detach().cpu().numpy(), self._bias.detach().cpu().numpy()
        return Head(kernel.astype(np.float64), bias.astype(np.float64))

    @property
    def is_done(self) -> bool:
        return self.epoch - self.best_epoch >= _PATIENCE

    @property
    def words(self) -> str:
        return (
            f"best so far epoch {self.best_epoch} at a loss of {self._losses[self.best_epoch]:.3f}"
        )

    def begin(self, head: Head) -> None:
        with self._torch.no_grad():
            self._kernel.copy_(self._torch.from_numpy(head.kernel))
            self._bias.copy_(self._torch.from_numpy(head.bias))

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        with self._torch.no_grad():
            made = [self.network(self._batch(images[at : at + _BATCH])) for at in _starts(images)]
            return self._torch.cat(made).cpu().numpy()

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float64 (images, classes)."""
        if not len(images):
            return np.zeros((0, len(self._bias)))
        return self.head.logits(self.features(images))

    def run(self, pictures: Iterator[tuple[np.ndarray, int]], weights: np.ndarray, of: int) -> None:
        """Train with each picture once."""
        batches = math.ceil(of / _BATCH)
        for number in range(batches):
            batch = [pair for pair, _ in zip(pictures, range(_BATCH), strict=False)]
            done = (self.epoch + number / batches) / self._recipe.epochs
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                # The first epoch is a start at full length, for the head is already fitted.
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))
            images = self._batch([image for image, _ in batch])
            target = self._torch.tensor([truth for _, truth in batch], device=self._device)
            logits = self.network(images) @ self._kernel.T + self._bias
            loss = self._torch.nn.functional.cross_entropy(
                logits,
                target,
                weight=self._torch.tensor(weights, dtype=logits.dtype, device=self._device),
                label_smoothing=_SMOOTHING,
            )
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()

    def keep(self, judge: _Judge, epoch: int) -> None:
        """Judge the epoch, and keep its weights if it is the best."""
        self.epoch = epoch
        self._losses.append(judge.loss(self.logits(judge.images)))
        if self._losses[-1] <= min(self._losses):
            self.best_epoch = epoch
            self._best = self._weights()

    def restore(self) -> None:
        """Take the weights of the best epoch."""
        self._load(self._best)

    def save(self, path: Path | None, key: str) -> None:
        if path is None:
            return
        content = {
            **{"key": key, "epoch": self.epoch, "best_epoch": self.best_epoch},
            **{"losses": self._losses, "best": self._best, "weights": self._weights()},
            "optimizer": self._optimizer.state_dict(),
        }
        with whole_file(path) as partial:
            self._torch.save(content, partial)

    def resume(self, path: Path | None, key: str) -> bool:
        """Go on where a training of the same pictures was interrupted; returns whether it does."""
        if path is None or not path.is_file():
            return False
        try:
            content = self._torch.load(path, map_location=self._device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            _log.warning("'%s' cannot be read, training begins anew: %s", path, error)
            return False
        if content["key"] != key:
            _log.warning("'%s' is of other pictures or options, training begins anew", path)
            return False
        self.epoch, self.best_epoch = content["epoch"], content["best_epoch"]
        self._losses, self._best = content["losses"], content["best"]
        self._load(content["weights"])
        self._optimizer.load_state_dict(content["optimizer"])
        _log.info("going on after epoch %d", self.epoch)
        return True

    def _weights(self) -> dict[str, Any]:
        own = {"kernel": self._kernel, "bias": self._bias}
        copied = {name: value.detach().clone() for name, value in own.items()}
        trunk = {n: value.detach().clone() for n, value in self.network.weights.items()}
        return {"head": copied, "trunk": trunk}

    def _load(self, weights: dict[str, Any]) -> None:
        with self._torch.no_grad():
            self._kernel.copy_(weights["head"]["kernel"])
            self._bias.copy_(weights["head"]["bias"])
        self.network.load(weights["trunk"])

    def _batch(self, images: Sequence[np.ndarray]) -> Any:
        return self._torch.from_numpy(np.stack(images)).to(self._device)


def _starts(images: Sequence[np.ndarray]) -> range:
    return range(0, len(images), _BATCH)


@contextmanager
def _images(trunk: Trunk, resize: ResizePolicy) -> Iterator[Any]:
    """Yield a function that reads a picture as the model sees it: float32 (3, height, width)."""
    with open_trunk(trunk) as model:
        slot = model.open_slot()
        if not isinstance(slot, NormalizingSlot) or not slot.backend.channels_first:
            raise ConversionError(
                "a base model is fine-tuned that takes normalized RGB, 1x3xHxW: teach a head alone, "
                "without --finetune"
            )
        backend, view = slot.backend, View(resize=resize)

        def read(look: Augmented) -> np.ndarray:
            view.plan(look.frame(), slot.nv12, backend.color_range, model.fit).run()
            backend.normalize(to_rgb(slot.nv12, backend.color_range), slot.image)
            image: np.ndarray = slot.image[0].astype(np.float32)
            return image

        try:
            yield read
        finally:
            slot.close()


def _key(alone: Taught, recipe: Recipe, train: np.ndarray) -> str:
    """Return what must be equal of a training that goes on."""
    digests = [alone.labeled.pictures[at].digest for at in train]
    weights = [each.raw_data for each in alone.model.graph.initializer]
    content = hashlib.sha256(repr((digests, asdict(recipe), alone.resize)).encode())
    for each in weights:
        content.update(each)
    return content.hexdigest()
