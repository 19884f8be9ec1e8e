"""Sources, as Python reads them: once for all tests that look at them."""

import ast
from functools import cache
from pathlib import Path


@cache
def nodesOf(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a module, from `ast.walk`."""
    return tuple(ast.walk(ast.parse(path.read_text())))
