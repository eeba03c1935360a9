# SPDX-License-Identifier: Apache-2.0
"""A web page that shows the latest frame with its classes, latency and rate."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.overlay import picture
from repghost_ros.vision.frame import Frame

_RATE_OVER = 2.0  # seconds
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>repghost watch</title><link rel="icon" href="data:,"><style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #e8edf2; background: #14191f }
main { display: flex; flex-wrap: wrap; gap: 1.5rem; padding: 1.5rem; max-width: 75rem; margin: auto }
img { flex: 3 1 24rem; min-width: 0; width: 24rem; border-radius: 6px; background: #000 }
section { flex: 2 1 18rem } h1 { font-size: 1.1rem; margin: 0 } .note { color: #93a1af }
li { list-style: none; margin: .5rem 0 } ul { padding: 0 }
.bar { height: 6px; border-radius: 3px; background: #3fb27f } #error { color: #ff9b8f }
b { font-size: 1.4rem; font-weight: 600 } dl { display: flex; gap: 2rem } dd { margin: 0 }
</style></head><body><main><img id="frame" alt="the latest frame"><section>
<h1 id="source"></h1><p class="note" id="model"></p>
<dl><div><dt class="note">latency</dt><dd><b id="latency">-</b></dd></div>
<div><dt class="note">frames a second</dt><dd><b id="fps">-</b></dd></div>
<div><dt class="note">frames</dt><dd><b id="number">-</b></dd></div></dl>
<ul id="results"></ul><p id="error"></p>
<p class="note"><button id="pause">Pause</button> <button id="step">Step</button>
space pauses, the right arrow key steps</p></section></main><script>
const at = id => document.getElementById(id);
let shown = 0;
async function look() {
  try {
    const state = await (await fetch("state")).json();
    at("source").textContent = state.source;
    at("model").textContent = state.model;
    at("number").textContent = state.number;
    at("pause").textContent = state.paused ? "Go on" : "Pause";
    at("pause").disabled = at("step").disabled = state.ended;
    at("error").textContent = state.error || (state.ended ? "The source has ended." :
      state.number ? "" : "waiting for the first frame");
    if (state.number !== shown) {
      shown = state.number;
      if (state.number) at("frame").src = "frame?" + state.number;
      at("latency").textContent = state.latency_ms.toFixed(1) + " ms";
      at("fps").textContent = state.fps.toFixed(1);
      at("results").replaceChildren(...state.results.map(result => {
        const line = document.createElement("li"), bar = document.createElement("div");
        line.textContent = (100 * result.score).toFixed(1) + " %  " + result.class_id;
        bar.className = "bar";
        bar.style.width = Math.max(1, 100 * result.score) + "%";
        line.append(bar);
        return line;
      }));
    }
  } catch {
    at("error").textContent =
      "repghost watch does not answer: it has ended, or its machine went away.";
  }
  setTimeout(look, 100);
}
const send = what => fetch(what, { method: "POST" }).catch(() => {});
at("pause").onclick = () => send("pause");
at("step").onclick = () => send("step");
document.onkeydown = event => {
  if (event.target.tagName === "BUTTON" && event.key !== "ArrowRight") return;
  if (event.key === " ") { event.preventDefault(); send("pause"); }
  if (event.key === "ArrowRight") send("step");
};
look();
</script></body></html>
"""


class Watched:
    """The latest frame, for any number of browsers.

    Args:
        source: what is watched, in words.
        model: the model and what runs it, in words.

    """

    def __init__(self, source: str, model: str) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._state: dict[str, Any] = {
            **{"source": source, "model": model, "number": 0, "error": ""},
            **{"latency_ms": 0.0, "fps": 0.0, "results": [], "paused": False, "ended": False},
        }
        self._steps = 0
        self._may_go_on = threading.Condition(self._lock)
        self._frame: Frame | None = None
        self._times: deque[float] = deque()

    def show(self, outcome: Outcome[Any]) -> None:
        """Show a frame and its results, or why there are none."""
        now = time.monotonic()
        with self._lock:
            self._times.append(now)
            while now - self._times[0] > _RATE_OVER:
                self._times.popleft()
            span = now - self._times[0]
            self._state["number"] += 1
            self._state["fps"] = (len(self._times) - 1) / span if span else 0.0
            if not isinstance(outcome, Answered):
                self._state["error"], self._state["results"] = str(outcome.error), []
                return
            times, self._frame = outcome.times, outcome.frame
            self._state["error"] = ""
            self._state["latency_ms"] = (times.inferred - times.started) * 1e3
            self._state["results"] = [
                {"class_id": each.class_id, "score": each.score} for each in outcome.results
            ]

    def pause(self) -> None:
        """Pause, or go on."""
        with self._may_go_on:
            self._state["paused"] = not self._state["paused"]
            self._steps = 0
            self._may_go_on.notify_all()

    def step(self) -> None:
        """Show one frame more, and pause after it."""
        with self._may_go_on:
            self._state["paused"] = True
            self._steps += 1
            self._may_go_on.notify_all()

    def take_turn(self, *, wait: bool) -> bool:
        """Return whether the next frame is to be shown; with `wait`, return once it is."""
        with self._may_go_on:
            while self._state["paused"] and not self._steps:
                if not wait:
                    return False
                self._may_go_on.wait()
            self._steps = max(0, self._steps - 1)
            return True

    def end(self) -> None:
        """Tell the page that no further frame comes."""
        with self._lock:
            self._state.update(ended=True, paused=False)

    def state(self) -> dict[str, Any]:
        """Return what the page shows beside the picture."""
        with self._lock:
            return dict(self._state)

    def jpeg(self) -> bytes | None:
        """Return the picture; None before the first frame."""
        with self._lock:
            frame = self._frame
        if frame is None:
            return None
        bgr = np.ascontiguousarray(picture(frame)[..., ::-1])
        return cv2.imencode(".jpg", bgr)[1].tobytes()


class PageServer(ThreadingHTTPServer):
    """Serves a page to browsers, which may leave at any moment."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a browser that closes its tab in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve(watched: Watched, host: str, port: int) -> ThreadingHTTPServer:
    """Serve the page on its own thread, until `shutdown` and `server_close`.

    Args:
        watched: what is shown.
        host: address to listen on; 127.0.0.1 keeps the images on this machine.
        port: 0 takes a free one, see `server_port`.

    Raises:
        OSError: the port is taken, or the address is not this machine's.

    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/":
                self._answer(_PAGE.encode(), "text/html; charset=utf-8")
            elif path == "/state":
                self._answer(json.dumps(watched.state()).encode(), "application/json")
            elif path == "/frame" and (jpeg := watched.jpeg()) is not None:
                self._answer(jpeg, "image/jpeg")
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            control = {"/pause": watched.pause, "/step": watched.step}.get(self.path)
            if control is None:
                self.send_error(404)
                return
            control()
            self._answer(b"", "text/plain")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Do not log ten requests per second."""

    server = PageServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="watch", daemon=True).start()
    return server
