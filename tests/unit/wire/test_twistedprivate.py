"""That private attributes of Twisted's are used in one module only, and are there."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

import pbauth
from pbauth.wire import twistedprivate
from tests.support.sources import nodesOf

PACKAGE = Path(pbauth.__file__).parent
ALLOWED = Path(twistedprivate.__file__)


def isPrivate(name: str) -> bool:
    """Whether a name has one underscore in front."""
    return name.startswith("_") and not name.startswith("__")


def modules() -> Iterator[tuple[Path, tuple[ast.AST, ...]]]:
    """All modules of the package, and their nodes."""
    for path in PACKAGE.rglob("*.py"):
        yield path, nodesOf(path)


def ours() -> set[str]:
    """The private names that some class or module of the package sets or defines."""
    found: set[str] = set()
    for _, nodes in modules():
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.alias):
                found.add(node.asname or node.name)
    return {name for name in found if isPrivate(name)}


class OneModuleTests(SynchronousTestCase):
    """Where private names of others are used."""

    def test_used(self) -> None:
        """A private attribute that the package does not define itself is used there only."""
        defined = ours()
        used = {
            (path.relative_to(PACKAGE).as_posix(), node.attr)
            for path, nodes in modules()
            if path != ALLOWED
            for node in nodes
            if isinstance(node, ast.Attribute) and isPrivate(node.attr) and node.attr not in defined
        }
        self.assertEqual(used, set())

    def test_overridden(self) -> None:
        """So is a private name that a class of Twisted's has, by a subclass."""
        used = set()
        for path, nodes in modules():
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if path == ALLOWED or parts[-1] == "__main__":
                continue
            module = import_module(name)
            for node in nodes[0].body:
                kind: Any = getattr(module, node.name) if isinstance(node, ast.ClassDef) else None
                theirs = {
                    private
                    for base in getattr(kind, "__mro__", ())
                    if base.__module__.startswith("twisted.")
                    for private in vars(base)
                    if isPrivate(private)
                }
                used |= {
                    (kind.__qualname__, each.attr)
                    for each in ast.walk(node)
                    if isinstance(each, ast.Attribute) and each.attr in theirs
                }
                used |= {
                    (kind.__qualname__, each) for each in theirs & vars(kind or builtins).keys()
                }
        self.assertEqual(used, set())

    def test_there(self) -> None:
        """Twisted has them."""
        for name in ("_recvMessage", "_sendAnswer", "_sendError", "_sendFailure"):
            self.assertTrue(callable(getattr(pb.Broker, name)), name)
        self.assertEqual(pb.Broker()._localCleanup, {})
        descriptor = FileDescriptor(object())  # type: ignore[arg-type]
        self.assertEqual(descriptor._tempDataBuffer, [])
        self.assertEqual(descriptor._tempDataLen, 0)
