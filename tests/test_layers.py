"""The floors of the house: imports run one way, down, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pbauth

PACKAGE = Path(pbauth.__file__).parent

#: Ground floor first. Within a floor a module may import those that stand before it.
FLOORS = [
    ["errors", "names", "interfaces", "coroutines"],
    [
        "mechanisms.connection",
        "mechanisms.saslprep",
        "mechanisms.md5",
        "mechanisms.scram",
        "mechanisms.authorizedkeys",
        "mechanisms.ed25519",
        "mechanisms.fingerprints",
        "mechanisms.external",
        "mechanisms.onemessage",
        "mechanisms.anonymous",
        "mechanisms.plain",
        "mechanisms",
        "hashing",
    ],
    ["audit", "clients", "sessions", "identity", "records", "perspective", "authorizer", "service"],
    ["policy", "passwordpolicy", "guard", "peers", "reactors", "trust", "descriptions", "ports"],
    [
        "wireobject",
        "banana",
        "milestones",
        "revocable",
        "broker",
        "pinging",
        "identitywrapper",
        "legacy",
        "exchanges",
        "root",
        "renewal",
        "credentials",
        "opening",
        "client",
        "connector",
        "reconnecting",
        "perspectiveclient",
    ],
    [
        "authorizers",
        "authorizers.copies",
        "authorizers.engines",
        "authorizers.sqlite",
        "authorizers.postgres",
        "authorizers.sql",
        "authorizers.passwdlines",
        "authorizers.passwdstorage",
        "authorizers.passwdfile",
        "authorizers.ondemand",
        "authorizers.cred",
        "authorizers.pam",
        "checker",
        "dumps",
        "transfer",
        "testing",
    ],
    [
        "admin",
        "adminservice",
        "",
        "state",
        "auditfile",
        "remoteadmin",
        "echo",
        "demo",
        "metrics",
        "firstrun",
        "serverparts",
        "tap",
    ],
    [
        "cli.running",
        "cli.passwords",
        "cli.knownservers",
        "cli.connecting",
        "cli.remote",
        "cli.tables",
        "cli.completion",
        "cli.users",
        "cli.keys",
        "cli.whocan",
        "cli.sessions",
        "cli.calls",
        "cli.passwd",
        "cli.dumps",
        "cli",
        "__main__",
    ],
]

ORDER = {module: place for place, module in enumerate(chain(*FLOORS))}

#: The only modules that may ask for the global reactor: the front doors go through it, too.
KNOWS_THE_REACTOR = {"reactors"}


def modules() -> dict[str, Path]:
    """All modules of the package, by name without ``pbauth.``; the package itself is ``""``."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a module imports, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
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


class LayerTests(SynchronousTestCase):
    """Read every import of the package."""

    def test_everyModuleHasAFloor(self) -> None:
        """The plan names all modules, and no others."""
        self.assertEqual(set(modules()), set(ORDER))

    def test_importsRunDown(self) -> None:
        """No import runs up the floors, or in a circle."""
        known = modules()
        seen = 0
        for module, path in known.items():
            for imported in imports(path, known):
                seen += 1
                self.assertLess(
                    ORDER[imported],
                    ORDER[module],
                    f"pbauth.{module} must not import pbauth.{imported}",
                )
        self.assertGreater(seen, 50)

    def test_mechanismsArePure(self) -> None:
        """A mechanism knows no Twisted, no clock, no thread and no random generator."""
        forbidden = {"twisted", "time", "threading", "random", "secrets", "os", "socket"}
        for module, path in modules().items():
            if not module.startswith("mechanisms"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
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
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    if any(alias.name == "reactor" for alias in node.names):
                        self.assertIn(module, KNOWS_THE_REACTOR)
