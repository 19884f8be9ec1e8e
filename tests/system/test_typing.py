"""Applications are type-checked in strict mode, as the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import TestCase

from pbauth import DefaultAuthorizer, Hashing, PublicKey
from pbauth.testing import MemoryServer
from tests.support.listings import LISTINGS
from tests.support.processes import run
from tests.support.typedapplication import Game, Screen, fill

#: What mypy has found out about Twisted, pbauth and their dependencies is kept here.
CACHE = Path(__file__).parent.parent.parent / ".mypy_cache" / "application"
APPLICATION = Path(__file__).parent.parent / "support" / "typedapplication.py"

#: What a type checker finds: a mistake a line, and what it is called.
MISTAKES = """
from pbauth import *

authorizer = DefaultAuthorizer()
Service("game", None, "authorizer")  # arg-type
Service("game", object(), authorizer)  # arg-type
CredAuthorizer([authorizer])  # list-item
AuthRoot(Policy())  # arg-type
Policy(mechanisms=3)  # arg-type
IdentityConnector(8787, None, "alice", "secret")  # arg-type
connect("tls:localhost", None, "alice", b"secret", "game")  # arg-type
connect("tls:localhost", None, "alice", "secret", "game", client=object())  # arg-type
connect("tls:localhost", None, "alice", "secret", "game", trust=8787)  # arg-type
authorizer.createIdentity("alice").setPasword("secret")  # attr-defined
authorizer.addIdentity(Perspective("alice"))  # arg-type
Perspective("alice").setService(authorizer)  # arg-type


class Forgetful(Perspective):
    def attached(self, clientref: object, identity: IIdentity) -> None:  # override
        pass
"""


class TypingTests(TestCase):
    """The configuration of the documentation, and mypy."""

    async def test_checked(self) -> None:
        """
        A whole application has no errors, and each mistake of another one is found, where both
        stand alone in a folder: pbauth is found where it is installed, and says that it has types.
        """
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "application.py").write_text(APPLICATION.read_text())
        (folder / "mistaken.py").write_text(MISTAKES)
        program = await run(
            *("-m", "mypy", "--config-file", str(LISTINGS / "mypy.ini"), f"--cache-dir={CACHE}"),
            *("application.py", "mistaken.py"),
            directory=str(folder),
        )
        self.assertEqual(program.exitCode, 1)
        expected = [
            ("mistaken", str(number), kind)
            for number, line in enumerate(MISTAKES.splitlines(), 1)
            for kind in re.findall(r"  # ([a-z-]+)$", line)
        ]
        self.assertGreater(len(expected), 10)
        found = re.findall(r"(?m)^(\w+)\.py:(\d+): error: .*\[([a-z-]+)\]$", program.output)
        self.assertEqual(found, expected)
        self.assertRegex(program.output, r"in 1 file \(checked 2 source files\)\n$")

    async def test_works(self) -> None:
        """The application does what its types say."""
        memory = MemoryServer(DefaultAuthorizer(None, Hashing.CHEAPEST))
        memory.authorizer.setServiceCollection(memory.services)
        Game("game", memory.services, memory.authorizer)
        await fill(memory.authorizer, PublicKey(bytes(32)).line())
        screen = Screen()
        perspective = self.successResultOf(memory.logIn("alice", "secret", "game", client=screen))
        moved = perspective.callRemote("move", "D4")
        memory.flush()
        self.assertEqual(self.successResultOf(moved), 1)
        self.assertEqual(screen.heard, ["greet alice", "moved D4"])
