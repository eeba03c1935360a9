# SPDX-License-Identifier: Apache-2.0
"""Print what a Python file does: its syntax tree without docstrings and annotations; for mutants.sh."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


class Bare(ast.NodeTransformer):
    """Removes what is never run."""

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        """Make docstrings nothing."""
        return ast.Pass() if isinstance(node.value, ast.Constant) else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Remove the type of what it returns."""
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Remove its type."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Give all the same type."""
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


print(ast.dump(Bare().visit(ast.parse(Path(sys.argv[1]).read_text(encoding="utf-8")))))
