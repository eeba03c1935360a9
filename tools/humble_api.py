# SPDX-License-Identifier: Apache-2.0
"""The names of Humble's rclpy: `python tools/humble_api.py RCLPY` writes test/data/rclpy_humble.json.

RCLPY is the folder with rclpy's Python files, of its humble branch or of an installed Humble.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WRITTEN = Path(__file__).parent.parent / "test" / "data" / "rclpy_humble.json"


def names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements define, those within `if` and `try` included."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from names(node.body)


def keywords(function: ast.FunctionDef) -> list[str]:
    """Return the names of a function's arguments; `**` where it takes any."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [each.arg for each in given] + ["**"] * bool(function.args.kwarg)


def api(package: Path) -> dict[str, Any]:
    """Return the names in a package's modules, the attributes of its classes, and arguments by name."""
    modules: dict[str, set[str]] = {}
    attributes: set[str] = set()
    arguments: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules.setdefault(module, set()).update(names(tree.body))
        parent, _, own = module.rpartition(".")
        modules.setdefault(parent, set()).add(own)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                arguments.setdefault(node.name, set()).update(keywords(node))
            elif isinstance(node, ast.ClassDef):
                attributes.update(names(node.body))
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name in (
                        "__init__",
                        "__new__",
                    ):
                        arguments.setdefault(node.name, set()).update(keywords(method))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                attributes.add(node.attr)
    del modules[""]
    return {
        "modules": {name: sorted(found) for name, found in sorted(modules.items())},
        "attributes": sorted(attributes),
        "arguments": {name: sorted(found) for name, found in sorted(arguments.items())},
    }


if __name__ == "__main__":
    WRITTEN.write_text(json.dumps(api(Path(sys.argv[1])), indent=0) + "\n")
