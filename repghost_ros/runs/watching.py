# SPDX-License-Identifier: Apache-2.0
"""A web page that shows the latest frame with its classes, latency and rate."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from repghost_ros.engine.model import Answered, Outcome
from repghost_ros.engine.overlay import picture
from repghost_ros.engine.results import Result
from repghost_ros.errors import OutputError, RepghostError, SourceError
from repghost_ros.runs.page_server import (
    CLASS_BUTTONS,
    CLASS_STYLE,
    PageHandler,
    PageServer,
)
from repghost_ros.sources.pictures import encode
from repghost_ros.vision.frame import Frame

_RATE_OVER = 2.0  # seconds
_KEPT_PIXELS = 64_000_000  # of the frames to step back to: 30 of full HD, 200 MB at most
_PAGE = (
    """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>repghost watch</title><link rel="icon" href="data:,"><style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #e8edf2; background: #14191f }
main { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1.5rem; padding: 1.5rem;
  max-width: 75rem; margin: auto }
img { flex: 3 1 24rem; min-width: 0; width: 24rem; border-radius: 6px; background: #000 }
section { flex: 2 1 18rem; min-width: 0; overflow-wrap: anywhere }
h1 { font-size: 1.1rem; margin: 0 } .note { color: #93a1af }
li { list-style: none; margin: .5rem 0 } ul { padding: 0 }
.bar { height: 6px; border-radius: 3px; background: #3fb27f } #error { color: #ff9b8f }
#error.note { color: #93a1af }
b { font-size: 1.4rem; font-weight: 600 } dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem }
dt, dd { margin: 0; white-space: nowrap }
"""
    + CLASS_STYLE
    + """
@media (max-width: 30rem) { main { padding: 1rem; gap: 1rem } dl { column-gap: 1.2rem } }
</style></head><body><main><img id="frame" alt="the latest frame"><section>
<div id="labeling" hidden><p class="note" id="folder"></p><div id="classes"></div>
<form id="new"><input id="typed" aria-label="new class" placeholder="new class, Enter"
autocomplete="off"></form><p id="said" role="status"></p></div>
<h1 id="source"></h1><p class="note" id="model"></p>
<dl><div><dt class="note">latency</dt><dd><b id="latency">-</b></dd></div>
<div><dt class="note">frames/s</dt><dd><b id="fps">-</b></dd></div>
<div><dt class="note">frame</dt><dd><b id="number">-</b></dd></div></dl>
<ul id="results"></ul><p id="error"></p>
<p class="note"><button id="back">Back</button> <button id="pause">Pause</button>
<button id="step">Step</button></p>
<p class="note">Space pauses, the arrow keys step.</p></section></main><script>
const at = id => document.getElementById(id);
let shown = 0, classes = "";
"""
    + CLASS_BUTTONS
    + """
async function change(what, body) {
  try {
    const answer = await fetch(what, {method: "POST", body: JSON.stringify(body),
      headers: {"Content-Type": "application/json"}});
    const told = await answer.json();
    at("said").textContent = told.error || told.said;
  } catch { at("said").textContent = "repghost watch does not answer."; }
}
function label(name) { if (shown) change("label", {number: shown, "class": name}); }
function showClasses(state) {
  at("labeling").hidden = !state.classes;
  if (!state.classes || classes === JSON.stringify(state.classes)) return;
  classes = JSON.stringify(state.classes);
  at("folder").textContent = "A key or a tap writes the picture to " + state.folder + ".";
  at("classes").replaceChildren(...classButtons(state.classes),
    button("⌫", "undo", null, () => change("undo", {})));
}
at("new").onsubmit = event => {
  event.preventDefault();
  const name = at("typed").value.trim();
  at("typed").value = ""; at("typed").blur();
  if (name) label(name);
};
async function look() {
  try {
    const state = await (await fetch("state")).json();
    at("source").textContent = state.source;
    at("model").textContent = state.model;
    at("number").textContent = state.number;
    showClasses(state);
    at("pause").textContent = state.paused ? "Go on" : "Pause";
    at("pause").disabled = state.ended;
    at("step").disabled = state.ended && !state.later;
    at("back").disabled = !state.earlier;
    at("error").textContent = state.error || (state.ended ? "The source has ended." :
      state.number ? "" : "waiting for the first frame");
    at("error").className = state.error ? "" : "note";
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
    at("error").className = "";
    at("error").textContent =
      "repghost watch does not answer: it has ended, or its machine went away.";
  }
  setTimeout(look, 100);
}
const send = what => fetch(what, { method: "POST" }).catch(() => {});
for (const what of ["back", "pause", "step"]) at(what).onclick = () => send(what);
const keys = { " ": "pause", ArrowLeft: "back", ArrowRight: "step" };
document.onkeydown = event => {
  if (event.target === at("typed") || event.ctrlKey || event.altKey || event.metaKey) return;
  if (!at("labeling").hidden && event.key === "Backspace") change("undo", {});
  if (!at("labeling").hidden && classKeys[event.key]) label(classKeys[event.key]);
  if (!(event.key in keys)) return;
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  event.preventDefault();
  send(keys[event.key]);
};
look();
</script></body></html>
"""
)


@dataclass(frozen=True)
class _Shown:
    """A frame with its results, or why there are none."""

    number: int
    frame: Frame | None
    latency_ms: float = 0.0
    results: tuple[Result, ...] = ()
    error: str = ""

    @property
    def pixels(self) -> int:
        return self.frame.width * self.frame.height if self.frame else 0


class Labels(Protocol):
    """Where frames that are labeled are kept."""

    def state(self) -> dict[str, Any]:
        """Return the folder in words, and the classes with their counts."""
        ...

    def label(self, frame: Frame, results: tuple[Result, ...], number: int, name: str) -> str:
        """Keep a frame as one of a class; returns what was done in words."""
        ...

    def undo(self) -> str:
        """Take the last label back; returns what was done in words."""
        ...


class Watched:
    """The latest frames, for any number of browsers; one of them is shown.

    Args:
        source: what is watched, in words.
        model: the model and what runs it, in words.
        labels: where frames that are labeled are kept; None: they cannot be.

    """

    def __init__(self, source: str, model: str, labels: Labels | None = None) -> None:
        self._labels = labels
        self._lock = threading.Lock()  # guards everything below
        self._may_go_on = threading.Condition(self._lock)
        self._about = {"source": source, "model": model}
        self._kept: deque[_Shown] = deque()
        self._behind = 0
        """How many frames before the latest one the page shows."""
        self._paused = self._ended = False
        self._steps = 0
        self._times: deque[float] = deque()

    def show(self, outcome: Outcome[Any]) -> None:
        """Show a frame and its results, or why there are none."""
        now = time.monotonic()
        with self._lock:
            self._times.append(now)
            while now - self._times[0] > _RATE_OVER:
                self._times.popleft()
            last = self._kept[-1] if self._kept else _Shown(0, None)
            if isinstance(outcome, Answered):
                latency_ms = (outcome.times.inferred - outcome.times.started) * 1e3
                shown = _Shown(last.number + 1, outcome.frame, latency_ms, outcome.results)
            else:
                error = str(outcome.error)
                shown = _Shown(last.number + 1, last.frame, last.latency_ms, error=error)
            self._kept.append(shown)
            while len(self._kept) > 2 and sum(frame.pixels for frame in self._kept) > _KEPT_PIXELS:
                self._kept.popleft()
            if self._behind:  # what is looked at stays
                self._behind = min(self._behind + 1, len(self._kept) - 1)

    def pause(self) -> None:
        """Pause, or go on."""
        with self._may_go_on:
            self._paused = not self._paused and not self._ended
            self._steps = self._behind = 0
            self._may_go_on.notify_all()

    def step(self) -> None:
        """Show the next frame, and pause after it."""
        with self._may_go_on:
            self._paused = not self._ended
            if self._behind:
                self._behind -= 1
            else:
                self._steps += 1
            self._may_go_on.notify_all()

    def back(self) -> None:
        """Pause, and show the frame before this one, if it is still kept."""
        with self._may_go_on:
            self._paused = not self._ended
            self._steps = 0
            self._behind = max(0, min(self._behind + 1, len(self._kept) - 1))

    def take_turn(self, *, wait: bool) -> bool:
        """Return whether the next frame is to be shown; with `wait`, return once it is."""
        with self._may_go_on:
            while self._paused and not self._steps:
                if not wait:
                    return False
                self._may_go_on.wait()
            self._steps = max(0, self._steps - 1)
            return True

    def end(self) -> None:
        """Tell the page that no further frame comes."""
        with self._lock:
            self._ended, self._paused = True, False

    @property
    def frames(self) -> int:
        """The number of frames so far."""
        with self._lock:
            return self._kept[-1].number if self._kept else 0

    def state(self) -> dict[str, Any]:
        """Return what the page shows beside the picture."""
        labels = self._labels.state() if self._labels is not None else {}
        with self._lock:
            shown = self._shown() or _Shown(0, None)
            span = self._times[-1] - self._times[0] if self._times else 0.0
            return {
                **self._about,
                **labels,
                "number": shown.number,
                "error": shown.error,
                "latency_ms": shown.latency_ms,
                "fps": (len(self._times) - 1) / span if span else 0.0,
                "results": [
                    {"class_id": result.class_id, "score": result.score} for result in shown.results
                ],
                "paused": self._paused,
                "ended": self._ended,
                "earlier": self._behind < len(self._kept) - 1,
                "later": self._behind > 0,
            }

    def label(self, number: int, name: str) -> str:
        """Keep a frame that was shown as one of a class; returns what was done in words.

        Raises:
            SourceError: it is no longer held, or cannot be labeled so.
            FrameError: it cannot be read.
            OutputError: it cannot be written.

        """
        with self._lock:
            held = next((each for each in self._kept if each.number == number), None)
        if self._labels is None or held is None or held.frame is None or held.error:
            raise SourceError(f"frame {number} is no longer held: pause first")
        return self._labels.label(held.frame, held.results, number, name)

    def undo(self) -> str:
        """Take the last label back; returns what was done in words.

        Raises:
            SourceError: there is none.
            OutputError: it cannot be removed.

        """
        if self._labels is None:
            raise SourceError("nothing to undo")
        return self._labels.undo()

    def jpeg(self) -> bytes | None:
        """Return the picture; None before the first frame, and if it is too large for a JPEG."""
        with self._lock:
            shown = self._shown()
        if shown is None or shown.frame is None:
            return None
        bgr = np.ascontiguousarray(picture(shown.frame)[..., ::-1])
        try:
            return encode(".jpg", bgr)
        except OutputError:
            return None

    def _shown(self) -> _Shown | None:
        return self._kept[-1 - self._behind] if self._kept else None


def serve_frames(watched: Watched, host: str, port: int) -> PageServer:
    """Serve the page; see PageServer for the address and the errors."""

    class Handler(PageHandler):
        def get(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/":
                self.send_page(_PAGE)
            elif path == "/state":
                self.send_json(watched.state())
            elif path == "/frame" and (jpeg := watched.jpeg()) is not None:
                self.send(jpeg, "image/jpeg")
            else:
                self.send_error(404)

        def post(self) -> None:
            control = {
                "/pause": watched.pause,
                "/step": watched.step,
                "/back": watched.back,
            }.get(self.path)
            if control is not None:
                control()
                self.send(b"", "text/plain")
            elif self.path in ("/label", "/undo"):
                self._change()
            else:
                self.send_error(404)

        def _change(self) -> None:
            body = self.posted()
            if body is None:
                return
            try:
                if self.path == "/undo":
                    said = watched.undo()
                else:
                    said = watched.label(int(body["number"]), str(body["class"]))
                self.send_json({"said": said})
            except (RepghostError, KeyError, TypeError, ValueError) as error:
                self.send_json({"error": str(error)})

    return PageServer(Handler, host, port)
