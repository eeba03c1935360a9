# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: style, pictures and plots are in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape

import cv2
import numpy as np

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.scroll { max-height: 28rem; overflow: auto } svg { max-width: 100%; height: auto }
table { border-collapse: collapse; width: 100% } caption { text-align: left; color: #56636f }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #d7dde3 }
th { position: sticky; top: 0; background: #fff }
th:first-child, td:first-child { text-align: left } tr.chosen td { font-weight: 600 }
.verdict { padding: .8rem 1rem; border-left: 6px solid; border-radius: 4px; margin: 1rem 0 }
.pass { background: #e8f5ec; border-color: #23864a }
.fail { background: #fdecea; border-color: #b3261e }
.note { color: #56636f; font-size: .9rem }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 11rem }
figure img { width: 100%; border-radius: 4px } figcaption { font-size: .85rem; line-height: 1.35 }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A page of these HTML parts."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>" + "\n".join(parts) + "</body></html>\n"
    )


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    *,
    chosen: str | None = None,
) -> str:
    """A table of text; a long one scrolls, and the row that begins with `chosen` is highlighted."""

    def line(cells: Sequence[object], tag: str, kind: str = "") -> str:
        shown = ("-" if cell is None else escape(str(cell)) for cell in cells)
        return f"<tr{kind}>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = "".join(line(row, "td", ' class="chosen"' if row[0] == chosen else "") for row in rows)
    return f'<div class="scroll"><table>{said}{line(head, "th")}{body}</table></div>'


def note(text: str) -> str:
    """A paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>'


def plot(draw: Callable[[io.StringIO], None]) -> str:
    """A figure drawn by a function of runs.plots, as SVG."""
    target = io.StringIO()
    draw(target)
    return target.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]


def figure(rgb: np.ndarray, caption: str) -> str:
    """A picture of uint8 (height, width, 3) RGB, 320 pixels at most, with text below it."""
    scale = min(1.0, 320 / max(rgb.shape[:2]))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]))[1].tobytes()
    data = base64.b64encode(jpeg).decode()
    lines = "<br>".join(map(escape, caption.splitlines()))
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="">'
        f"<figcaption>{lines}</figcaption></figure>"
    )


def gallery(figures: Iterable[str]) -> str:
    """Figures beside each other."""
    return f'<div class="pictures">{"".join(figures)}</div>'
