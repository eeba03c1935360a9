# SPDX-License-Identifier: Apache-2.0
"""Serve a page to browsers, on a thread of its own."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MOST = 4096  # bytes of a request
CLASS_STYLE = """:root { color-scheme: dark }
#classes { display: flex; flex-wrap: wrap; gap: .5rem; margin: .75rem 0 }
button { font: inherit; color: inherit; background: #26303a; border: 1px solid #3c4a58;
  border-radius: 6px; padding: .3rem .8rem; cursor: pointer }
button:disabled { color: #93a1af; opacity: .6; cursor: default }
#classes button { display: flex; gap: .5rem; padding: .6rem .8rem; flex: 1 1 8rem; max-width: 100%;
  text-align: left }
#classes b { font-size: inherit; color: #7fd6ac }
#classes span { min-width: 0; overflow-wrap: break-word }
#classes i { margin-left: auto; color: #93a1af }
input { font: inherit; padding: .6rem; width: 12rem; max-width: 100%; border-radius: 6px;
  box-sizing: border-box; color: inherit; background: #26303a; border: 1px solid #3c4a58 }"""
"""Style of the pages that label pictures, and of their buttons."""
CLASS_BUTTONS = """let classKeys = {};
function button(mark, text, count, act) {
  const made = document.createElement("button");
  for (const [tag, content] of [["b", mark], ["span", text], ["i", count]]) {
    const part = document.createElement(tag);
    part.textContent = content;
    made.append(part);
  }
  made.onclick = act;
  return made;
}
function classButtons(classes) {
  const none = classes.find(each => each.name === "nothing") || {count: 0};
  classKeys = {"0": "nothing"};
  const made = classes.filter(each => each.name !== "nothing").map((each, index) => {
    const key = "123456789abcdefghijklmnopqrstuvwxyz"[index] || "";
    classKeys[key] = each.name;
    return button(key, each.name, each.count, () => label(each.name));
  });
  return [...made, button("0", "nothing", none.count, () => label("nothing"))];
}"""
"""Script of a button for each class, which calls the page's `label`; `classKeys` are their keys."""


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

    def posted(self) -> dict[str, Any] | None:
        """Return the JSON object of a POST request; None where it has none, which was answered then.

        Another site's page cannot send this type without being asked first, and is not answered.
        """
        if self.headers.get("Content-Type") != "application/json":
            self.send_error(415)
            return None
        try:
            size = min(_MOST, int(self.headers.get("Content-Length", 0)))
            body = json.loads(self.rfile.read(size))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self.send_error(400)
            return None
        return body

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
