# SPDX-License-Identifier: Apache-2.0
"""Serve a page to browsers, on a thread of its own."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class PageHandler(BaseHTTPRequestHandler):
    """Answers requests without storing anything in the browser or logging them."""

    def get(self) -> None:
        """Answer a GET request for `path`."""
        raise NotImplementedError

    def post(self) -> None:
        """Answer a POST request for `path`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """As the base class calls it."""
        self.get()

    def do_POST(self) -> None:
        """As the base class calls it."""
        self.post()

    def send(self, body: bytes, content_type: str) -> None:
        """Answer with a body."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def send_page(self, html: str) -> None:
        """Answer with a page."""
        self.send(html.encode(), "text/html; charset=utf-8")

    def send_json(self, value: Any) -> None:
        """Answer with a value as JSON."""
        self.send(json.dumps(value).encode(), "application/json")

    def log_message(self, *_: Any) -> None:
        """Do not log ten requests per second."""


class PageServer(ThreadingHTTPServer):
    """Serves a page until `shutdown` and `server_close`; browsers may leave at any moment.

    Args:
        handler: answers the requests.
        host: address to listen on; 127.0.0.1 keeps the pictures on this machine.
        port: 0 takes a free one, see `server_port`.

    Raises:
        OSError: the port is taken, or the address is not this machine's.

    """

    daemon_threads = True

    def __init__(self, handler: type[PageHandler], host: str, port: int) -> None:
        super().__init__((host, port), handler)
        threading.Thread(target=self.serve_forever, name="page", daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a browser that closes its tab in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
