"""pbauth's broker towards bad peers and waiting programs."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error as netError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import AuthServerFactory, Broker, ProtocolViolation
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService
from tests.wire import WireTestCase


class GarbageTests(SynchronousTestCase):
    """Bytes that are not Perspective Broker end the connection, with one line in the log."""

    def server(self) -> tuple[Any, StringTransport]:
        """A server's end of a connection that agreed on the protocol."""
        memory = MemoryServer()
        broker = AuthServerFactory(memory.authorizer, reactor=memory.clock).buildProtocol(None)
        transport = StringTransport()
        broker.makeConnection(transport)
        broker.dataReceived(banana.encode(b"pb"))
        return broker, transport

    def assertCutOff(self, data: bytes) -> None:
        """These bytes end the connection."""
        broker, transport = self.server()
        broker.dataReceived(data)
        self.assertTrue(transport.disconnecting or transport.aborting)
        broker.dataReceived(data)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_garbage(self) -> None:
        """Examples of each kind of broken rule."""
        for data in [
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: nobody\r\nAccept: */*\r\n\r\n",
            b"\x05\x88",
            b"\x7f\x87",
            banana.encode(b"not a list"),
            banana.encode([]),
            banana.encode([b"version", 5]),
            banana.encode([b"answer", 99, b"nobody asked"]),
            banana.encode([b"decref", 99]),
            banana.encode([b"message", 1]),
            banana.encode([[b"list"], 1]),
            banana.encode([b"\xff\xfe", 1]),
        ]:
            self.assertCutOff(data)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=5))
    def test_anyBytes(self, chunks: list[bytes]) -> None:
        """Whatever bytes come, in whatever pieces: no exception, and no traceback."""
        broker, _ = self.server()
        for chunk in chunks:
            broker.dataReceived(chunk)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_lateWaiters(self) -> None:
        """Who asks after the end is told at once."""
        broker = Broker()
        broker.factory = pb.PBClientFactory()
        broker.makeConnection(StringTransport())
        waiting = broker.whenGreeted()
        closed = broker.whenClosed()
        self.assertNoResult(waiting)
        self.assertNoResult(closed)
        broker.dataReceived(b"SSH-2.0-OpenSSH_9.2p1 with a comment that makes it very long\r\n" * 3)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        self.failureResultOf(waiting, ProtocolViolation)
        self.successResultOf(closed)
        self.failureResultOf(broker.whenGreeted(), ProtocolViolation)
        self.successResultOf(broker.whenClosed())

    def test_cancelledWaiter(self) -> None:
        """Who gives up waiting is forgotten."""
        broker = Broker()
        broker.factory = pb.PBClientFactory()
        broker.makeConnection(StringTransport())
        waiting = broker.whenGreeted()
        waiting.cancel()
        self.failureResultOf(waiting)
        broker.connectionLost(Failure(netError.ConnectionDone()))


class CoroutineTests(WireTestCase):
    """Under pbauth's broker every method may be a coroutine."""

    def test_viewsAndReferences(self) -> None:
        """`view_` and `remote_` methods, too."""

        class Board(pb.Viewable):
            async def view_player(self, perspective: Any) -> str:
                return perspective.perspectiveName

        class Piece(pb.Referenceable):
            async def remote_name(self) -> str:
                return "stone"

        class Player(RecordingPerspective):
            def perspective_things(self) -> Any:
                return Board(), Piece()

        self.game.perspectiveClass = Player
        perspective = self.successResultOf(self.login())
        board, piece = self.answer(perspective, "things")
        self.assertEqual(self.answer(board, "player"), "alice")
        self.assertEqual(self.answer(piece, "name"), "stone")


class UnknownClassTests(WireTestCase):
    """What is of a class that the other end does not know."""

    def perspective(self, method: Any) -> Any:
        """Attach to a perspective with this method."""
        self.game.perspectiveClass = type(
            "Player", (RecordingPerspective,), {"perspective_ask": method}
        )
        return self.successResultOf(self.login())

    def test_error(self) -> None:
        """An error of an unknown class fails the call by its name; the connection stays."""

        class Unknown(pb.Error, pb.Copyable):
            pass

        def ask(perspective: Any) -> None:
            raise Unknown()

        perspective = self.perspective(ask)
        error = self.refusal(perspective, "ask")
        self.assertIsInstance(error, pb.RemoteError)
        self.assertIn("Unknown", error.remoteType)
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_answer(self) -> None:
        """So does an answer."""

        class Unknown(pb.Copyable):
            pass

        perspective = self.perspective(lambda perspective: Unknown())
        self.assertIsInstance(self.refusal(perspective, "ask"), jelly.InsecureJelly)
        self.assertEqual(self.answer(perspective, "whoami"), "alice")


class TestKitTests(SynchronousTestCase):
    """`pbauth.testing`, as applications use it."""

    def test_drop(self) -> None:
        """Clients come and go, and the service has a record of it."""
        memory = MemoryServer()
        service = RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        memory.disconnect(self.successResultOf(memory.logIn("alice", "secret", "game")))
        self.assertEqual(
            [(event.kind, event.perspectiveName, event.identityName) for event in service.events],
            [("attached", "alice", "alice"), ("detached", "alice", "alice")],
        )

    def test_stockFactory(self) -> None:
        """A server factory of stock Twisted may stand in."""
        from pbauth import AuthRoot, DefaultAuthorizer, Hashing

        memory = MemoryServer()
        authorizer = DefaultAuthorizer(memory.services, Hashing.CHEAPEST)
        factory = pb.PBServerFactory(AuthRoot(authorizer, reactor=memory.clock))
        memory = MemoryServer(authorizer, factory=factory)
        authorizer.setServiceCollection(memory.services)
        RecordingService("game", memory.services, authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        perspective = self.successResultOf(memory.logIn("alice", "secret", "game"))
        answer = perspective.callRemote("whoami")
        memory.flush()
        self.assertEqual(self.successResultOf(answer), "alice")
