# SPDX-License-Identifier: Apache-2.0
"""Show a camera, stream, video, folder or ROS topic live in a browser, with classes and latency.

A source that begins with / and is not a file is a topic, which needs ROS. The page is served to
this machine only, unless --host says otherwise: whoever can reach it sees the images. After the last
picture of a file or folder the page keeps it until Ctrl-C. With --label DIR, a key or a tap writes the
picture that is shown to the folder of its class, for `repghost teach`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_model,
    add_reporting,
    add_view,
    model_from,
    positive_float,
    reporting,
    view,
)
from repghost_ros.cli.serving import add_address, served
from repghost_ros.engine.model import Model
from repghost_ros.engine.request import Request
from repghost_ros.errors import UsageError, need, without_passwords
from repghost_ros.runs.html import count
from repghost_ros.runs.watching import Watched, serve_frames
from repghost_ros.sources.live import is_live, live_pictures
from repghost_ros.sources.pictures import find, pictures
from repghost_ros.teach.keeping import Keeper
from repghost_ros.vision.frame import Frame

HELP = "show a camera, video or topic live in a browser"
_VIDEO_RATE = 30.0  # pictures a second
_FOLDER_RATE = 1.0  # slow enough to look at every picture

Read = Callable[[], Frame]


class WatchReport:
    """Classifies and serves while it is iterated over, until the source ends or is interrupted."""

    failed = False
    is_endless = True
    """An interrupt is how it ends."""

    def __init__(
        self, model: Model, made: Iterator[Read], options: argparse.Namespace, *, of_files: bool
    ) -> None:
        self._model = model
        self._made = made
        self._of_files = of_files
        self._options = options
        self._view = view(options)
        source = without_passwords(options.source)
        labels = Keeper(options.label, source) if options.label is not None else None
        self._watched = Watched(source, model.about(self._view), labels)

    def text(self) -> Iterator[str]:
        """Yield the page's address and, at the end, the number of frames."""
        yield from self._watch()
        yield count(self._watched.frames, "frame")

    def as_json(self) -> dict[str, Any]:
        """Return the last state of the page."""
        urls = list(self._watch())
        return {"url": urls[0], "results": [self._watched.state()]}

    def _watch(self) -> Iterator[str]:
        options = self._options
        reported = reporting(options)
        reported.check(self._model.labels)
        slot = self._model.open_slot()
        serve = partial(serve_frames, self._watched)
        try:
            with served(serve, options.host, options.port) as address:
                yield f"{address}  (Ctrl-C ends it)"
                for read in self._made:
                    if not self._watched.take_turn(wait=self._of_files):
                        continue
                    request = Request(read, lambda read: read(), self._view, reported)
                    for outcome in self._model.run([request], slot):
                        self._watched.show(outcome)
                self._watched.end()
                while self._of_files:  # the page keeps the last picture
                    time.sleep(1)
        except KeyboardInterrupt:
            pass  # the ordinary end
        finally:
            slot.close()
            self._model.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost watch`."""
    parser.add_argument("source", metavar="CAMERA|URL|VIDEO|DIR|TOPIC")
    add_model(parser)
    add_view(parser)
    add_reporting(parser)
    add_address(parser)
    parser.add_argument(
        "--rate",
        type=positive_float,
        metavar="HZ",
        help=f"rate at which files are shown (default: {_VIDEO_RATE:g} for a video, {_FOLDER_RATE:g} "
        "for pictures)",
    )
    parser.add_argument(
        "--loop", action="store_true", help="begin again after the last of the files"
    )
    parser.add_argument(
        "--label", type=Path, metavar="DIR", help="label pictures while watching, into DIR/CLASS"
    )
    parser.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="remaining arguments go to ROS, for remapping",
    )


def run(options: argparse.Namespace) -> WatchReport:
    """Open the source and the model."""
    if options.source.startswith("/") and not Path(options.source).exists():
        listening = need("repghost_ros.ros.listening", "source a ROS 2 installation")
        made = listening.image_readers(options.source, options.ros_args)
    elif is_live(options.source):
        made = (picture.frame for picture in live_pictures(options.source))
    else:
        files = find([Path(options.source)])
        rounds = repeat(files) if options.loop else [files]
        made = _at_rate(chain.from_iterable(rounds), options.rate)
        return WatchReport(model_from(options), made, options, of_files=True)
    if options.loop:
        raise UsageError("--loop is for a video or a folder")
    return WatchReport(model_from(options), made, options, of_files=False)


def _at_rate(files: Iterable[Path], rate: float | None) -> Iterator[Read]:
    due = time.monotonic()
    for picture in pictures(files):
        time.sleep(max(0.0, due - time.monotonic()))
        own = _FOLDER_RATE if picture.index is None else _VIDEO_RATE
        due = max(due + 1 / (rate or own), time.monotonic())
        yield picture.frame
