"""Clients of stock Twisted, unmodified, in processes of their own and over TCP."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.spread import pb

from pbauth import AuthRoot, AuthServerFactory, DefaultAuthorizer, Hashing, Policy, Unauthorized
from pbauth.errors import WireError
from tests.support.processes import Program
from tests.support.serving import AwaitedPerspective, AwaitedService, ServingTestCase

#: The client's modules; pbauth is none of them.
IMPORTED = ("twisted.internet.epollreactor", "twisted.protocols.basic", "twisted.spread.pb")
CLIENT = str(Path(__file__).parent.parent / "support" / "stockclient.py")

POLICY = Policy(legacyLogin=True, defaultService="game", guest="guest")


class NotYourTurn(WireError):
    """An error of the application's own."""

    def __init__(self) -> None:
        super().__init__("It is not your turn.")


class Player(AwaitedPerspective):
    """What a client may call."""

    def perspective_double(self, number: int) -> int:
        return number * 2

    async def perspective_introduce(self, words: str) -> Any:
        return await self.client.callRemote("hear", words)

    def perspective_wait(self) -> Deferred[None]:
        return Deferred()

    def perspective_move(self) -> None:
        raise NotYourTurn()

    async def perspective_cheat(self) -> None:
        raise Unauthorized()


class Game(AwaitedService):
    perspectiveClass = Player


class Stock:
    """
    A client in a process of its own (see `stockclient`).

    Args:
        test: ends it.
        port: where it connects.
    """

    def __init__(self, test: ServingTestCase, port: int) -> None:
        self.program = Program(CLIENT, str(port), stdin=None, forked=True, imported=IMPORTED)
        test.addCleanup(self.program.stop)
        self._number = 0

    def begin(self, *command: Any) -> Deferred[str]:
        """Tell it something to do, and give a Deferred of the line that it answers."""
        self._number += 1
        self.program.write(json.dumps(command) + "\n")
        answer: Any = self.program.waitFor(rf"(?m)^{self._number}: (.*)\n")
        return answer.addCallback(lambda found: found[1])

    async def do(self, *command: Any) -> Any:
        """Tell it something to do, and give what came of it."""
        return json.loads(await self.begin(*command))

    async def fail(self, *command: Any) -> tuple[str, str]:
        """Tell it something to do that fails; give its word for that, and the name of the class."""
        line = await self.begin(*command)
        found = re.match(r"(unauthorized|error) ([\w.]+): .", line)
        if found is None:
            raise AssertionError(f"{command}: {line}")
        return found[1], found[2]


class StockClientTests(ServingTestCase):
    """Against pbauth's own factory."""

    def makeFactory(self, authorizer: Any) -> Any:
        return AuthServerFactory(authorizer, POLICY)

    def setUp(self) -> None:
        services = MultiService()
        authorizer = DefaultAuthorizer(services, Hashing(iterations=4096, md5=True))
        self.game = Game("game", services, authorizer)
        self.authorizer = authorizer
        self.alice = self.addUser("alice", ("game", "alice"))
        self.addUser("guest", ("game", "guest"))
        self.addUser("keyless")
        self.client = Stock(self, self.listen(self.makeFactory(authorizer)))

    def addUser(self, name: str, *keys: tuple[str, str]) -> Any:
        identity = self.authorizer.createIdentity(name)
        identity.setPassword(f"{name}'s password")
        for key in keys:
            identity.addKeyByString(*key)
        identity.save()
        return identity

    async def assertGoesOn(self) -> None:
        """
        The connection is still good, nobody has seen a traceback, and the client does not know
        pbauth.
        """
        self.assertEqual(await self.client.do("anonymous"), "perspective")
        self.assertEqual(await self.client.do("call", "whoami"), "guest")
        self.assertEqual(await self.client.do("pbauth"), [])
        self.assertNotIn("logged:", self.client.program.output)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_session(self) -> None:
        """It logs in, calls and is called, logs out, and comes again on the same connection."""
        client = self.client
        self.assertEqual(await client.do("login", "alice", "alice's password"), "perspective")
        self.assertEqual(await client.do("call", "whoami"), "alice")
        self.assertEqual(await client.do("call", "double", 21), 42)
        self.assertEqual(await client.do("call", "introduce", "hello"), "HELLO")
        self.assertEqual(await client.do("heard"), ["hello"])
        await client.do("drop")
        await self.game.whenHappened(2)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        await self.assertGoesOn()
        self.assertEqual(len(self.authorizer.sessions), 1)
        client.program.kill()
        await self.game.whenHappened(4)
        self.assertEqual(self.game.kinds(), ["attached", "detached"] * 2)
        self.assertEqual(
            [(event.identityName, event.perspectiveName) for event in self.game.events],
            [("alice", "alice")] * 2 + [("guest", "guest")] * 2,
        )

    async def test_refusals(self) -> None:
        """A refused login is an ordinary error, and may be tried again on the same connection."""
        for name, password, error in [
            ("alice", "wrong", "Unauthorized"),
            ("mallory", "wrong", "Unauthorized"),
            ("keyless", "keyless's password", "KeyNotFound"),
        ]:
            refusal = await self.client.fail("login", name, password)
            self.assertEqual(refusal, ("unauthorized", f"pbauth.errors.{error}"))
        self.assertEqual(self.game.events, [])
        await self.assertGoesOn()

    async def test_errorsOfCalls(self) -> None:
        """Errors that pbauth's clients catch by class are ordinary ones here, by their names."""
        await self.client.do("login", "alice", "alice's password")
        for method, kind, name in [
            ("move", "error", f"{NotYourTurn.__module__}.NotYourTurn"),
            ("cheat", "unauthorized", "pbauth.errors.Unauthorized"),
        ]:
            self.assertEqual(await self.client.fail("call", method), (kind, name))
        await self.assertGoesOn()

    async def test_revoked(self) -> None:
        """When the server ends the session, calls under way and later ones fail; nothing else."""
        await self.client.do("login", "alice", "alice's password")
        waiting = self.client.begin("call", "wait")
        self.assertEqual(await self.client.do("call", "whoami"), "alice")
        self.alice.removeKey("game", "alice")
        self.assertIn("error pbauth.errors.Detached: ", await waiting)
        self.assertEqual(
            await self.client.fail("call", "whoami"), ("error", "pbauth.errors.Detached")
        )
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        await self.assertGoesOn()

    async def test_loginOfTwisted1(self) -> None:
        """The login of Twisted 1.x: the identity, or nothing; its errors can be read as well."""
        client = self.client
        self.assertEqual(await client.do("twisted1", "alice", "wrong"), "no identity")
        self.assertEqual(await client.do("twisted1", "alice", "alice's password"), "identity")
        self.assertEqual(
            await client.fail("attach", "game", "guest"),
            ("unauthorized", "pbauth.errors.KeyNotFound"),
        )
        self.assertEqual(await client.do("attach", "game", "alice"), "perspective")
        self.assertEqual(await client.do("call", "introduce", "hello"), "HELLO")
        self.assertEqual(await client.do("keys"), [["game", "alice"]])
        await client.do("detach")
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(await client.fail("call", "whoami"), ("error", "pbauth.errors.Detached"))
        self.assertEqual(
            await client.fail("attach", "game", "guest"),
            ("unauthorized", "pbauth.errors.KeyNotFound"),
        )
        await self.assertGoesOn()


class StockServerTests(StockClientTests):
    """Against the factory of stock Twisted: stock PB at both ends."""

    def makeFactory(self, authorizer: Any) -> Any:
        return pb.PBServerFactory(AuthRoot(authorizer, POLICY))


class NotLetInTests(ServingTestCase):
    """Servers that let no stock client in, or no guest."""

    async def test_off(self) -> None:
        """By default stock clients are refused in words that they understand."""
        for policy, refusal in [
            (Policy(), "error pbauth.errors.MechanismNotSupported: "),
            (Policy(legacyLogin=True), "error pbauth.errors.MechanismNotSupported: "),
            (
                Policy(legacyLogin=True, defaultService="game"),
                "unauthorized pbauth.errors.Unauthorized: ",
            ),
        ]:
            authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
            client = Stock(self, self.listen(AuthServerFactory(authorizer, policy)))
            for _ in "12":
                self.assertIn(refusal, await client.begin("anonymous"))
            self.assertRegex(
                await client.begin("login", "alice", "secret"), "^(unauthorized|error) pbauth"
            )
            self.assertNotIn("logged:", client.program.output)
