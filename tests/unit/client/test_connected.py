"""A connection for the length of a block; and tests that wait, on a server in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from pbauth import Login, PerspectiveClient, Unauthorized, connected
from pbauth.client.connection import using
from pbauth.testing import MemoryServer, RecordingService
from tests.support.wire import WireTestCase


class WaitingTests(TestCase):
    """Tests that are coroutines: everything is carried while they wait."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.game = RecordingService("game", self.memory.services, self.memory.authorizer)
        self.memory.addUser("alice", "secret", ("game", "alice"))

    async def test_calls(self) -> None:
        """Calls are answered without `flush`."""
        alice = await self.memory.logIn("alice", "secret", "game")
        for _ in range(3):
            self.assertEqual(await alice.callRemote("whoami"), "alice")

    async def test_block(self) -> None:
        """The connection is there in the block, and closed after it."""
        login = Login(self.memory, "alice", "secret", "game")
        async with connected(login, self.memory.clock) as alice:
            self.assertEqual(await alice.callRemote("whoami"), "alice")
        self.assertTrue(alice.broker.disconnected)  # type: ignore[attr-defined]
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    async def test_error(self) -> None:
        """It is closed also if the block fails; a login that is refused raises."""
        login = Login(self.memory, "alice", "secret", "game")
        with self.assertRaises(ZeroDivisionError):
            async with connected(login, self.memory.clock):
                raise ZeroDivisionError
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        wrong = Login(self.memory, "alice", "wrong", "game")
        with self.assertRaises(Unauthorized):
            async with connected(wrong, self.memory.clock):
                self.fail("nobody gets here")

    async def test_lost(self) -> None:
        """A connection that is closed already is left alone."""
        login = Login(self.memory, "alice", "secret", "game")
        async with connected(login, self.memory.clock) as alice:
            self.memory.disconnect(alice)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    async def test_staying(self) -> None:
        """A client that stays logged in is closed by name."""
        client = PerspectiveClient(
            self.memory, "secret", "game", username="alice", reactor=self.memory.clock
        )
        client.startService()
        self.assertEqual(await client.callRemote("whoami"), "alice")
        await client.close()
        self.assertFalse(client.running)

    async def test_wrong(self) -> None:
        """What is no login is refused."""
        with self.assertRaises(TypeError):
            async with connected(object()):  # type: ignore[arg-type]
                self.fail("nobody gets here")


class StuckTests(WireTestCase):
    """A connection that does not close."""

    def test_cut(self) -> None:
        """It is cut after some seconds."""

        async def block() -> Any:
            login = Login(self.memory, "alice", "secret", "game")
            async with connected(login, self.memory.clock) as alice:
                self.memory.cut(alice)
                alice.broker.transport.loseConnection = lambda: None  # type: ignore[attr-defined]

        running = Deferred.fromCoroutine(block())
        self.memory.flush()
        self.assertNoResult(running)
        self.memory.advance(5)
        self.successResultOf(running)


class AbandonedTests(WireTestCase):
    """What nobody waits for any more, such as when the program ends, waits for nothing either."""

    def test_login(self) -> None:
        """A login."""
        root = self.root()
        login: Any = using(root, Deferred())
        login.send(None)
        login.close()
        self.memory.flush()
        self.assertTrue(root.broker.disconnected)

    def test_block(self) -> None:
        """The block of a connection."""
        block: Any = connected(Login(self.memory, "alice", "secret", "game"), self.memory.clock)
        entering = Deferred.fromCoroutine(block.__aenter__())
        self.memory.flush()
        alice = self.successResultOf(entering)
        with self.assertRaises(StopIteration):
            block.gen.aclose().send(None)
        self.memory.flush()
        self.assertTrue(alice.broker.disconnected)
