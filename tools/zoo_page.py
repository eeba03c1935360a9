# SPDX-License-Identifier: Apache-2.0
"""The tables and the plot in docs/zoo.md: `python tools/zoo_page.py` writes them anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repghost_ros.runs.plots import plot_models
from repghost_ros.zoo.catalogue import MODELS, REPGHOST, front
from repghost_ros.zoo.record import Record

PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
PLOT = PAGE.with_suffix(".png")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _fps(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def front_table() -> str:
    """Return the models of the front, fastest first, then the RepGhosts that are not on it."""
    head = ["model", "int8 %, published", "FPS, published"]
    head += [f"FPS, predicted, {kind}" for kind in ("as exported", "fused", "fused, batch 4")]
    rows = []
    for name in (*front(), *(size for size in REPGHOST if size not in front())):
        record = MODELS[name]
        predicted, published = record.predicted, record.published
        exported = predicted.exported_us
        rows.append(
            (
                f"**{name}**" if name in front() else name,
                f"{published.int8_top1:.2f}" if published else "",
                _fps(published.fps if published else None),
                _fps(1e6 / exported if exported else None),
                _fps(predicted.fps()),
                _fps(predicted.fps(4)),
            )
        )
    return _table(head, rows)


def models_table() -> str:
    """Return all models, the fastest first."""
    head = (
        "model",
        "family",
        "M parameters",
        "float %",
        "int8 %",
        "ms",
        "FPS",
        "license of timm's weights",
    )
    return _table(
        head, [_row(each) for each in sorted(MODELS.values(), key=lambda r: -(r.fps or 0))]
    )


def _row(record: Record) -> tuple[str, ...]:
    figures = record.published
    name = f"**{record.name}**" if record.name in front() else record.name
    family = f"[{record.family}]({record.source})"
    if figures is None:
        own = f"{record.authors_top1:.2f} (authors)"
        return (name, family, "", own, "", "", "", record.license)
    return (
        name,
        family,
        f"{figures.params_m:.2f}",
        f"{figures.float_top1:.2f}",
        f"{figures.int8_top1:.2f}",
        f"{figures.latency_1_ms:.2f}",
        f"{figures.fps:.0f}",
        record.license,
    )


def remarks() -> str:
    """Return what is odd about the published figures."""
    return "\n".join(f"- `{each.name}`: {each.remark}." for each in MODELS.values() if each.remark)


def page() -> str:
    """Return docs/zoo.md with the catalogue's figures."""
    text = PAGE.read_text(encoding="utf-8")
    parts = {"front": front_table(), "models": models_table(), "remarks": remarks()}
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        text = f"{text.split(begin)[0]}{begin}\n{part}\n\n{end}{text.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    plot_models(PLOT, list(MODELS.values()))
