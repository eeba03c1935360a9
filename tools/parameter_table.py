# SPDX-License-Identifier: Apache-2.0
"""The table of parameters in docs/node.md: `python tools/parameter_table.py` writes it anew."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from repghost_ros.ros.parameters import Parameters

PAGE = Path(__file__).parent.parent / "docs" / "node.md"
BEGIN, END = "<!-- parameters: begin -->\n\n", "\n<!-- parameters: end -->\n"


def written(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'


def allowed(metadata: Any) -> str:
    """Which values a parameter may have; empty: any of its type."""
    if metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in metadata["choices"])
    if metadata["bounds"]:
        low, high = metadata["bounds"]
        return f"{low:g} to {high:g}"
    return ""


def table() -> str:
    """All parameters in Markdown, as the node declares them."""
    lines = ["| parameter | default | values | fixed | |", "| --- | --- | --- | --- | --- |"]
    for parameter in fields(Parameters):
        metadata = parameter.metadata
        cells = (
            f"`{parameter.name}`",
            f"`{written(parameter.default)}`",
            allowed(metadata),
            "yes" if metadata["read_only"] else "",
            metadata["description"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def split(page: str) -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands behind it."""
    before, rest = page.split(BEGIN)
    between, after = rest.split(END)
    return before, between, after


if __name__ == "__main__":
    before, _, after = split(PAGE.read_text())
    PAGE.write_text(before + BEGIN + table() + END + after)
