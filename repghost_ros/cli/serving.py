# SPDX-License-Identifier: Apache-2.0
"""Shared by the commands that serve a page: its address, and its end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from repghost_ros.errors import OutputError
from repghost_ros.runs.page_server import PageServer


def _port(text: str) -> int:
    """Parse the number of a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port from 0 to 65535")
    return int(text)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the address that a page is served on."""
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


@contextmanager
def served(serve: Callable[[str, int], PageServer], host: str, port: int) -> Iterator[str]:
    """Serve a page, and yield its address.

    Args:
        serve: takes host and port.
        host: address to listen on.
        port: 0 takes a free one.

    Raises:
        OutputError: it cannot be served there.

    """
    try:
        server = serve(host, port)
    except OSError as error:
        raise OutputError(
            f"--host {host} --port {port} cannot be served: {error.strerror}"
        ) from error
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
