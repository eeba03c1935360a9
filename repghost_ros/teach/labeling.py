# SPDX-License-Identifier: Apache-2.0
"""Label pictures in the browser: a key or a tap moves the picture into the folder of its class.

The page is served to this machine only, unless another address is asked for. Only pages of this server
may change anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from repghost_ros.engine.overlay import picture
from repghost_ros.errors import FrameError, RepghostError, SourceError
from repghost_ros.output import named_errors
from repghost_ros.runs.page_server import (
    CLASS_BUTTONS,
    CLASS_STYLE,
    PageHandler,
    PageServer,
)
from repghost_ros.sources.folders import IMAGES, files_in, is_data
from repghost_ros.sources.pictures import encode, read_image
from repghost_ros.teach.labeled import UNLABELED, check_class, class_counts, class_folders

_KINDS = {
    **{".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"},
    **{".webp": "image/webp", ".bmp": "image/bmp", ".gif": "image/gif"},
}
_PAGE = (
    """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>repghost label</title><style>
body { font: 17px/1.4 system-ui, sans-serif; margin: 0; color: #e8edf2; background: #14191f }
main { max-width: 60rem; margin: auto; padding: .75rem } p { margin: .4rem 0; color: #93a1af }
img { width: 100%; max-height: 60vh; object-fit: contain; background: #000; border-radius: 6px }
"""
    + CLASS_STYLE
    + """
#error { color: #ff9b8f }</style></head><body><main>
<img id="picture" alt="the picture to label"><p id="name"></p><p id="error" role="alert"></p>
<div id="classes"></div><form id="new"><input id="typed" aria-label="new class"
placeholder="new class, Enter" autocomplete="off"></form>
<p>Keys: 1-9 and letters for a class, 0 for nothing, Space skips, Backspace undoes. Nothing
leaves this machine.</p></main><script>
const at = id => document.getElementById(id);
let state = {}, busy = false;
async function ask(what, body) {
  if (busy) return;
  busy = true;
  try {
    const how = body ? {method: "POST", body: JSON.stringify(body),
      headers: {"Content-Type": "application/json"}} : {};
    const answer = await fetch(what, how);
    const told = await answer.json();
    at("error").textContent = told.error || "";
    if (!told.error) { state = told; show(); }
  } catch { at("error").textContent = "repghost label does not answer: has it ended?"; }
  busy = false;
}
"""
    + CLASS_BUTTONS
    + """
function show() {
  at("name").textContent = state.picture ? state.left + " left: " + state.picture
    : "All pictures are labeled.";
  at("picture").hidden = !state.picture;
  if (state.picture) at("picture").src = "picture/" + encodeURIComponent(state.picture);
  const made = classButtons(state.classes);
  made.push(button("Space", "skip", state.skipped, () => ask("skip", {picture: state.picture})),
    button("⌫", "undo", null, () => ask("undo", {})));
  at("classes").replaceChildren(...made);
}
function label(name) { if (state.picture) ask("label", {picture: state.picture, "class": name}); }
at("new").onsubmit = event => {
  event.preventDefault();
  const name = at("typed").value.trim();
  at("typed").value = ""; at("typed").blur();
  if (name) label(name);
};
document.onkeydown = event => {
  if (event.target === at("typed") || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === " ") { event.preventDefault(); ask("skip", {picture: state.picture}); }
  else if (event.key === "Backspace") ask("undo", {});
  else if (classKeys[event.key]) label(classKeys[event.key]);
};
ask("state");
</script></body></html>
"""
)


class Labeling:
    """The pictures of a folder that have no class yet: those in `unlabeled`, and those beside it.

    Args:
        folder: with a subfolder for each class that there is already.

    Raises:
        SourceError: the folder does not exist.

    """

    def __init__(self, folder: Path) -> None:
        class_folders(folder)
        self._folder = folder
        self._lock = threading.Lock()  # guards everything below
        self._skipped: set[str] = set()
        self._moved: list[tuple[Path, Path]] = []

    def state(self) -> dict[str, Any]:
        """Return what the page shows."""
        with self._lock:
            return self._state()

    def label(self, shown: str, name: str) -> dict[str, Any]:
        """Move a picture into a class, which may be new; returns the state.

        Raises:
            SourceError: no class has the name, or the picture is not there any more.
            OutputError: it cannot be moved.

        """
        name = name.strip()
        check_class(name)
        with self._lock:
            path = self._find(shown)
            target = self._folder / name / path.name
            if target.exists():
                raise SourceError(f"'{target}' exists already: rename one of the pictures")
            with named_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
            self._moved.append((path, target))
            return self._state()

    def skip(self, shown: str) -> dict[str, Any]:
        """Leave a picture for later; returns the state."""
        with self._lock:
            self._skipped.add(shown)
            return self._state()

    def undo(self) -> dict[str, Any]:
        """Take the last label back, or else all skips; returns the state.

        Raises:
            OutputError: the picture cannot be moved back.

        """
        with self._lock:
            if self._moved:
                path, target = self._moved.pop()
                with named_errors(path):
                    target.rename(path)
            else:
                self._skipped.clear()
            return self._state()

    def content(self, name: str) -> tuple[bytes, str]:
        """Return the content of an unlabeled picture and its MIME type.

        Raises:
            SourceError: there is no such picture.
            OutputError: browsers do not show its format, and it is too large to be shown as JPEG.

        """
        with self._lock:
            path = self._find(name)
            kind = _KINDS.get(path.suffix.lower())
            if kind is not None:
                return path.read_bytes(), kind
            try:  # browsers show no TIFF and the like
                rgb = picture(read_image(path))
            except FrameError as error:
                raise SourceError(str(error)) from error
            bgr = np.ascontiguousarray(rgb[..., ::-1])
            return encode(".jpg", bgr), "image/jpeg"

    def _waiting(self) -> list[Path]:
        inside = self._folder / UNLABELED
        found = files_in(inside, IMAGES) if inside.is_dir() else []
        loose = (path for path in self._folder.iterdir() if path.suffix.lower() in IMAGES)
        return sorted([*found, *(path for path in loose if is_data(path.name))])

    def _find(self, shown: str) -> Path:
        path = next((each for each in self._waiting() if each.name == shown), None)
        if path is None:
            raise SourceError(f"'{shown}' is not there any more: reload the page")
        return path

    def _state(self) -> dict[str, Any]:
        waiting = [path.name for path in self._waiting()]
        left = [name for name in waiting if name not in self._skipped]
        return {
            **{"picture": left[0] if left else None, "left": len(left)},
            **{"skipped": len(waiting) - len(left), "classes": class_counts(self._folder)},
        }


def serve_labeling(labeling: Labeling, host: str, port: int) -> PageServer:
    """Serve the page; see PageServer for the address and the errors."""

    class Handler(PageHandler):
        def get(self) -> None:
            if self.path == "/":
                self.send_page(_PAGE)
            elif self.path == "/state":
                self._act(labeling.state)
            elif self.path.startswith("/picture/"):
                try:
                    self.send(*labeling.content(unquote(self.path.removeprefix("/picture/"))))
                except (RepghostError, OSError):
                    self.send_error(404)
            else:
                self.send_error(404)

        def post(self) -> None:
            body = self.posted()
            if body is None:
                return
            act: Callable[[], dict[str, Any]] | None = {
                "/label": lambda: labeling.label(str(body["picture"]), str(body["class"])),
                "/skip": lambda: labeling.skip(str(body["picture"])),
                "/undo": labeling.undo,
            }.get(self.path)
            if act is None:
                self.send_error(404)
            else:
                self._act(act)

        def _act(self, act: Callable[[], dict[str, Any]]) -> None:
            try:
                answer = act()
            except (RepghostError, OSError, KeyError, TypeError) as error:
                answer = {"error": str(error)}
            self.send_json(answer)

    return PageServer(Handler, host, port)
