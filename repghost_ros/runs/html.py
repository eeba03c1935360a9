# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: style, pictures and plots are in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape

import cv2
import numpy as np

from repghost_ros.errors import without_passwords
from repghost_ros.sources.pictures import encode
from repghost_ros.version import __version__

_STYLE = """
:root { color-scheme: light dark; --text: #1c2733; --back: #fff; --soft: #56636f; --line: #d7dde3;
  --pass: #e8f5ec; --fail: #fdecea }
@media screen and (prefers-color-scheme: dark) { :root { --text: #e8edf2; --back: #14191f;
  --soft: #93a1af; --line: #35404b; --pass: #14351f; --fail: #431a17 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  margin: 2rem auto; max-width: 60rem; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.scroll { overflow: auto } .tall { max-height: 28rem }
svg { max-width: 100%; height: auto; background: #fff; border-radius: 4px }
@media screen and (prefers-color-scheme: dark) { svg { filter: invert(.9) hue-rotate(180deg) } }
table { border-collapse: collapse; width: 100% } .caption { color: var(--soft); margin: 0 0 .3rem }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid var(--line) }
th { position: sticky; top: 0; background: var(--back); overflow-wrap: normal }
td { min-width: 5rem } td:first-child { min-width: 8rem } tr.chosen td { font-weight: 600 }
.number { text-align: right } td.number { white-space: nowrap; min-width: 0 }
tbody th { position: static; font-weight: normal; color: var(--soft); white-space: nowrap }
.verdict { padding: .8rem 1rem; border-left: 6px solid; border-radius: 4px; margin: 1rem 0 }
.pass { background: var(--pass); border-color: #23864a }
.fail { background: var(--fail); border-color: #b3261e }
.note { color: var(--soft); font-size: .9rem }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 11rem }
figure img { width: 100%; border-radius: 4px } figcaption { font-size: .85rem; line-height: 1.35 }
@media (max-width: 30rem) { body { margin: 1rem auto } table { font-size: .85rem }
  th, td { padding: .3rem .25rem } td:first-child { min-width: 4.5rem }
  figure { width: calc(50% - .5rem) } .plot svg { max-width: none; width: 36rem } }
@media print { :root { color-scheme: light } body { max-width: none; margin: 0 }
  .scroll { max-height: none; overflow: visible } .plot svg { max-width: 100% }
  th { position: static } td.number { white-space: normal }
  tr, figure, svg, .verdict { break-inside: avoid } h2 { break-after: avoid } }
"""
_TALL = 25  # rows, of a table that scrolls by itself


def page(title: str, parts: Iterable[str], about: str = "") -> str:
    """Return a page of these HTML parts, without the passwords of URLs in them.

    Args:
        title: the heading and the title of the browser's tab.
        parts: HTML.
        about: what the figures are of, below the heading and in the head; version and date follow.

    """
    written = f"repghost_ros {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %z}"
    about = f"{about}; {written}" if about else written
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="repghost_ros {__version__}">'
        f'<meta name="description" content="{escape(about)}"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{note(about)}" + "\n".join(parts) + "</body></html>\n"
    )
    return without_passwords(text)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    *,
    chosen: str | None = None,
) -> str:
    """Return a table of text that scrolls if it is long; the row beginning with `chosen` is bold.

    Columns of numbers are aligned right and never wrapped.
    """
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    kinds = [
        ' class="number"' if all(cell[:1].isdigit() or cell == "-" for cell in column) else ""
        for column in zip(*cells, strict=True)
    ] or [""] * len(head)

    def line(row: Sequence[str], tag: str, kind: str = "") -> str:
        shown = (f"<{tag}{k}>{escape(c)}</{tag}>" for c, k in zip(row, kinds, strict=True))
        return f"<tr{kind}>{''.join(shown)}</tr>"

    # Above what scrolls, because a caption within it is cut on a narrow screen.
    said = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    body = "".join(line(row, "td", ' class="chosen"' if row[0] == chosen else "") for row in cells)
    head_row = f"<thead>{line(head, 'th')}</thead>"  # repeated on every printed page
    tall = " tall" if len(cells) > _TALL else ""
    return f'{said}<div class="scroll{tall}"><table>{head_row}<tbody>{body}</tbody></table></div>'


def pairs(items: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values."""
    rows = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in items
    )
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def note(text: str) -> str:
    """Return a paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>'


def plot(draw: Callable[[io.StringIO], None], label: str) -> str:
    """Return a figure drawn by a function of runs.plots as SVG; screen readers read the label."""
    target = io.StringIO()
    draw(target)
    svg = target.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]
    labeled = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return f'<div class="scroll plot">{labeled}</div>'


def figure(rgb: np.ndarray, caption: str) -> str:
    """Return a picture of uint8 (height, width, 3) RGB, 320 pixels at most, with text below it."""
    scale = min(1.0, 320 / max(rgb.shape[:2]))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = encode(".jpg", np.ascontiguousarray(small[..., ::-1]))
    data = base64.b64encode(jpeg).decode()
    lines = "<br>".join(map(escape, caption.splitlines()))
    alt = escape(", ".join(caption.splitlines()))
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{alt}">'
        f"<figcaption>{lines}</figcaption></figure>"
    )


def gallery(figures: Iterable[str]) -> str:
    """Return figures beside each other."""
    return f'<div class="pictures">{"".join(figures)}</div>'
