# SPDX-License-Identifier: Apache-2.0
"""The table of parameters in docs/node.md: `python tools/parameter_table.py` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repghost_ros.ros.parameters import DECLARATIONS, Declaration

PAGE = Path(__file__).parent.parent / "docs" / "node.md"
BEGIN, END = "<!-- parameters: begin -->\n\n", "\n<!-- parameters: end -->\n"


def written(value: Any) -> str:
    """Write a value as YAML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'


def allowed(declared: Declaration) -> str:
    """Return the values that a parameter may have; empty: any of its type."""
    if declared.name == "model":
        return "[The zoo](zoo.md)"
    if declared.choices:
        return ", ".join(f"`{choice}`" for choice in declared.choices)
    if declared.bounds:
        low, high = declared.bounds
        return f"{low:g} to {high:g}"
    return ""


def table() -> str:
    """Return all parameters as a Markdown table, as the node declares them."""
    lines = ["| parameter | default | values | fixed | |", "| --- | --- | --- | --- | --- |"]
    for declared in DECLARATIONS.values():
        cells = (
            f"`{declared.name}`",
            f"`{written(declared.default)}`",
            allowed(declared),
            "yes" if declared.read_only else "",
            declared.description,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def split(page: str) -> tuple[str, str, str]:
    """Split a page into the text before the table, the table, and the text behind it."""
    before, rest = page.split(BEGIN)
    between, after = rest.split(END)
    return before, between, after


if __name__ == "__main__":
    before, _, after = split(PAGE.read_text())
    PAGE.write_text(before + BEGIN + table() + END + after)
