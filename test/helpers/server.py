# SPDX-License-Identifier: Apache-2.0
"""Model archives on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = b"\x08\x07\x12\x07pytorch" + bytes(range(256)) * 1000


class Archive(ThreadingHTTPServer):
    """Serves MODEL under any name, as faulty as the test wants."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = MODEL
        self.etag: str | None = '"one"'
        self.ranges = True
        self.resumes_rightly = True
        self.break_after: int | None = None
        self.status = 200
        self.refusals: list[int] = []
        """Statuses of the next answers."""
        self.gets: list[str | None] = []
        self.files: dict[str, bytes] = {}
        """Served as they are, whatever the status of others."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Archive

    def do_GET(self) -> None:
        archive = self.server
        wanted = self.headers.get("Range")
        archive.gets.append(wanted)
        if archive.refusals:
            self.send_response(archive.refusals.pop(0))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path in archive.files:
            body = archive.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        first, status = 0, archive.status
        if wanted and archive.ranges and self.headers.get("If-Range") == archive.etag:
            first, status = int(wanted[len("bytes=") : -1]), 206
        body = archive.body[first:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            begun = first if archive.resumes_rightly else 0
            end = len(archive.body)
            self.send_header("Content-Range", f"bytes {begun}-{end - 1}/{end}")
        if archive.etag:
            self.send_header("ETag", archive.etag)
        self.end_headers()
        self.wfile.write(body[: archive.break_after])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], home: Path) -> Iterator[dict[str, str]]:
    """Serve an archive by `handler` and yield the environment of a node that uses it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    yield {"REPGHOST_MODEL_URL": address, "REPGHOST_HOME": str(home)}
    server.shutdown()
    server.server_close()
