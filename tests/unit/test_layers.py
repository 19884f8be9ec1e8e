"""The floors of the house: imports run one way, down, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pbauth
from tests.support.sources import nodesOf

PACKAGE = Path(pbauth.__file__).parent
PROJECT = PACKAGE.parent

#: The floors, top to bottom: folders, and the modules beside them. ``""`` is `pbauth` itself.
FLOORS = [
    "__main__",
    "cli",
    "tap",
    "server",
    "echo",
    "",
    "testing",
    "admin",
    "dumps",
    "cred",
    "authorizers",
    "client",
    "login",
    "wire",
    "accounts",
    "perspectives",
    "audit",
    "mechanisms",
    "net",
    "_files",
    "_async",
    "_contained",
    "_arguments",
    "interfaces",
    "names",
    "errors",
]

#: What users may import from; everything else may move.
PUBLIC = {"", "errors", "interfaces", "testing", "tap", "echo"}

#: The only modules that may ask for the global reactor: the front doors go through it, too.
KNOWS_THE_REACTOR = {"_async"}


def modules() -> dict[str, Path]:
    """All modules of the package, by name without ``pbauth.``; the package itself is ``""``."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a module imports, at any depth of the code."""
    for node in nodesOf(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            source = node.module or ""
            names = [
                f"{source}.{alias.name}"
                if f"{source}.{alias.name}".removeprefix("pbauth.") in known
                else source
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            if name == "pbauth" or name.startswith("pbauth."):
                yield name.removeprefix("pbauth").removeprefix(".")


def floorOf(module: str) -> str:
    """The folder of a module, or its own name."""
    return module.partition(".")[0]


class LayerTests(SynchronousTestCase):
    """Read every import of the package."""

    def test_everyModuleHasAFloor(self) -> None:
        """The plan names all folders and modules at the top, and no others."""
        self.assertEqual({floorOf(module) for module in modules()}, set(FLOORS))

    def test_importsRunDown(self) -> None:
        """No import runs up the floors."""
        known = modules()
        height = {floor: -place for place, floor in enumerate(FLOORS)}
        seen = 0
        for module, path in known.items():
            for imported in imports(path, known):
                seen += 1
                above, below = floorOf(module), floorOf(imported)
                self.assertTrue(
                    above == below or height[below] < height[above],
                    f"pbauth.{module} must not import pbauth.{imported}",
                )
        self.assertGreater(seen, 500)

    def test_noCircles(self) -> None:
        """No import leads back, on whatever way."""
        known = modules()
        graph = {module: set(imports(path, known)) for module, path in known.items()}
        self.assertEqual(len(list(TopologicalSorter(graph).static_order())), len(known))

    def test_mechanismsArePure(self) -> None:
        """A mechanism knows no Twisted, no clock, no thread and no random generator."""
        forbidden = {"twisted", "time", "threading", "random", "secrets", "os", "socket"}
        for module, path in modules().items():
            if not module.startswith("mechanisms"):
                continue
            for node in nodesOf(path):
                if isinstance(node, ast.Import):
                    names = {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names = {(node.module or "").partition(".")[0]}
                else:
                    continue
                self.assertEqual(names & forbidden, set(), module)

    def test_globalReactor(self) -> None:
        """The global reactor is imported in one place."""
        for module, path in modules().items():
            for node in nodesOf(path):
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    if any(alias.name == "reactor" for alias in node.names):
                        self.assertIn(module, KNOWS_THE_REACTOR)


class SuiteTests(SynchronousTestCase):
    """The tests themselves."""

    def test_modulesShareBySupport(self) -> None:
        """No test module is imported by another, or by a helper: what they share is in a helper."""
        seen = 0
        for path in PROJECT.glob("tests/**/*.py"):
            # To read all of them as Python takes a second.
            for line in re.findall(r"(?m)^ *(?:from|import) +[.\w].*", path.read_text()):
                seen += " tests.support." in line
                self.assertNotRegex(line, r"from \.|\btests\b.*\btest_", path)
        self.assertGreater(seen, 100)


class PublicTests(SynchronousTestCase):
    """What users import."""

    def test_paths(self) -> None:
        """The public paths are there."""
        for module in PUBLIC:
            import_module(f"pbauth.{module}".rstrip("."))
        self.assertTrue(callable(import_module("pbauth.echo").EchoService))

    def test_documentation(self) -> None:
        """The programs of the documentation import from the public paths alone."""
        known = modules()
        programs = [*PROJECT.glob("docs/listings/*.py"), *PROJECT.glob("docs/examples/**/*.py")]
        self.assertGreater(len(programs), 30)
        for path in programs:
            private = set(imports(path, known)) - PUBLIC
            self.assertEqual(private, set(), path)
