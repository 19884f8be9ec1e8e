"""The floors of the house: imports run one way, down, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.floors import floorplan
from tests.support.sources import nodesOf

PROJECT = floorplan.PROJECT
modules, floorOf = floorplan.modules, floorplan.floorOf

#: The floors, top to bottom, from the page on the architecture. ``""`` is `pbauth` itself.
FLOORS = list(floorplan.floorsOfPage())

#: What users may import from; everything else may move.
PUBLIC = {"", "errors", "interfaces", "testing", "tap", "echo"}

#: The only modules that may ask for the global reactor: the front doors go through it, too.
KNOWS_THE_REACTOR = {"_async"}


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a module imports, at any depth of the code."""
    return floorplan.imports(nodesOf(path), known)


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

    def test_namesForTypes(self) -> None:
        """The interfaces alone name what stands above them."""
        found = [
            module for module, path in modules().items() if floorplan.namesForTypes(nodesOf(path))
        ]
        self.assertEqual(found, ["interfaces"])

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
