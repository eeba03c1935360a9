# SPDX-License-Identifier: Apache-2.0
"""Show a camera, stream, video, folder or ROS topic live in a browser, with classes and latency.

A source that begins with / and is not a file is a topic, which needs ROS. The page is served to
this machine only, unless --host says otherwise: whoever can reach it sees the images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from repghost_ros.cli.common import (
    add_model,
    add_reporting,
    add_view,
    open_model,
    positive_float,
    reporting,
    view,
)
from repghost_ros.engine.model import Model
from repghost_ros.engine.request import Request
from repghost_ros.errors import OutputError, need, without_passwords
from repghost_ros.runs.watching import Watched, serve
from repghost_ros.sources.live import is_live, live_pictures
from repghost_ros.sources.pictures import find, pictures
from repghost_ros.vision.frame import Frame

HELP = "show a camera, video or topic live in a browser"
_RATE = 30.0  # pictures a second, of files

Read = Callable[[], Frame]


class WatchReport:
    """Classifies and serves while it is iterated over, until the source ends or is interrupted."""

    failed = False
    is_endless = True
    """An interrupt is how it ends."""

    def __init__(self, model: Model, made: Iterator[Read], options: argparse.Namespace) -> None:
        self._model = model
        self._made = made
        self._options = options
        self._watched = Watched(
            without_passwords(options.source), f"{model.name} on {model.runtime}"
        )

    def text(self) -> Iterator[str]:
        """The page's address and, at the end, the number of frames."""
        yield from self._watch()
        yield f"{self._watched.state()['number']} frames"

    def as_json(self) -> dict[str, Any]:
        """The last state of the page."""
        urls = list(self._watch())
        return {"url": urls[0], "results": [self._watched.state()]}

    def _watch(self) -> Iterator[str]:
        options = self._options
        reported = reporting(options)
        reported.check(self._model.labels)
        try:
            server = serve(self._watched, options.host, options.port)
        except OSError as error:
            raise OutputError(
                f"--host {options.host} --port {options.port} cannot be served: {error.strerror}"
            ) from error
        slot = self._model.open_slot()
        try:
            yield f"http://{options.host}:{server.server_port}/  (Ctrl-C ends it)"
            for read in self._made:
                request = Request(read, lambda read: read(), view(options), reported)
                for outcome in self._model.run([request], slot):
                    self._watched.show(outcome)
        except KeyboardInterrupt:
            pass  # the ordinary end
        finally:
            server.shutdown()
            server.server_close()
            slot.close()
            self._model.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `repghost watch`."""
    parser.add_argument("source", metavar="CAMERA|URL|VIDEO|DIR|TOPIC")
    add_model(parser)
    add_view(parser)
    add_reporting(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to serve on (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8080,
        metavar="N",
        help="port to serve on; 0: any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=positive_float,
        default=_RATE,
        metavar="HZ",
        help="rate at which files are shown (default: %(default)g)",
    )
    parser.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="remaining arguments go to ROS, for remapping",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port from 0 to 65535")
    return int(text)


def run(options: argparse.Namespace) -> WatchReport:
    """Open the source and the model."""
    if options.source.startswith("/") and not Path(options.source).exists():
        listening = need("repghost_ros.ros.listening", "source a ROS 2 installation")
        made = listening.images(options.source, options.ros_args)
    elif is_live(options.source):
        made = (picture.frame for picture in live_pictures(options.source))
    else:
        made = _at_rate(find([Path(options.source)]), options.rate)
    return WatchReport(open_model(options), made, options)


def _at_rate(files: list[Path], rate: float) -> Iterator[Read]:
    due = time.monotonic()
    for picture in pictures(files):
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due + 1 / rate, time.monotonic())
        yield picture.frame
