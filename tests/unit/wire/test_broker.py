"""pbauth's broker towards bad peers and waiting programs."""

from __future__ import annotations

from functools import partial
from threading import Thread
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.credentials import UsernamePassword
from twisted.internet import error as netError
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python import threadable
from twisted.python.failure import Failure
from twisted.spread import banana, jelly, pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    AuthRoot,
    AuthServerFactory,
    Broker,
    DefaultAuthorizer,
    Hashing,
    Policy,
    ProtocolViolation,
)
from pbauth.testing import MemoryServer, RecordingPerspective, RecordingService
from pbauth.wire.decoding import Reader
from tests.support.streams import SIZES, cut, mutated
from tests.support.values import examples, stockBanana
from tests.support.wire import WireTestCase


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

    @settings(max_examples=100)
    @given(st.lists(st.binary(max_size=200), max_size=5))
    def test_anyBytes(self, chunks: list[bytes]) -> None:
        """Whatever bytes come, in whatever pieces: no exception, and no traceback."""
        broker, _ = self.server()
        for chunk in chunks:
            broker.dataReceived(chunk)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        self.assertEqual(self.flushLoggedErrors(), [])

    @examples(100)
    @given(mutated(), SIZES)
    def test_afterLogin(self, data: bytes, sizes: list[int]) -> None:
        """
        After a login, messages of all kinds, with a few bytes changed: errors of calls may be
        logged; but if anything ends the connection, it is the bytes.
        """
        broker = Broker(False)
        broker.factory = pb.PBServerFactory(pb.Root())
        transport = StringTransport()
        broker.makeConnection(transport)
        broker.dataReceived(banana.encode(b"pb"))
        for chunk in cut(data, sizes):
            broker.dataReceived(chunk)
        dropped = transport.disconnecting or getattr(transport, "aborting", False)
        self.assertEqual(dropped, broker.brokeProtocol)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        self.flushLoggedErrors()

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


class OwnFaultTests(SynchronousTestCase):
    """A mistake on this side ends the connection as well, but the peer is not blamed for it."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        """Keep what the audit has about dropped connections."""
        if event.get("event") == "connection.dropped":
            self.events.append((event["reason"], event["fault"]))

    def assertOwnFault(self, broker: Any, transport: StringTransport, data: bytes) -> None:
        """These bytes meet a mistake, which ends the connection."""
        broker.dataReceived(data)
        self.assertTrue(transport.disconnecting or transport.aborting)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertFalse(broker.brokeProtocol)
        # Nothing is read after it.
        broker.dataReceived(data)
        self.assertEqual(self.flushLoggedErrors(), [])

    def server(self) -> tuple[Any, StringTransport, MemoryServer]:
        """A server's end of a connection that agreed on the protocol."""
        memory = MemoryServer()
        broker = AuthServerFactory(memory.authorizer, reactor=memory.clock).buildProtocol(None)
        transport = StringTransport()
        broker.makeConnection(transport)
        broker.dataReceived(banana.encode(b"pb"))
        return broker, transport, memory

    def test_reader(self) -> None:
        """A mistake in the reader."""
        broker, transport, _ = self.server()
        self.patch(Reader, "_read", lambda reader, buffer, position: buffer.nothing)
        self.assertOwnFault(broker, transport, b"anything")
        self.assertEqual(self.events, [("internal error", "AttributeError")])

    def test_handler(self) -> None:
        """A mistake in what acts upon a message."""
        broker, transport, _ = self.server()
        self.patch(pb.Broker, "proto_decref", lambda broker, luid: luid.nothing)
        broker.registerReference(pb.Referenceable())
        self.assertOwnFault(broker, transport, banana.encode([b"decref", 1]))
        self.assertEqual(self.events, [("internal error", "AttributeError")])

    def test_noPenalty(self) -> None:
        """The address of the client is not slowed down for it, as it is for a broken rule."""
        for data, penalties in ((b"\xff", 1), (banana.encode([b"decref", 1]), 0)):
            broker, _, _ = self.server()
            blamed: list[Any] = []
            self.patch(broker.factory._authRoot.limits, "misbehaved", blamed.append)
            self.patch(pb.Broker, "proto_decref", lambda broker, luid: luid.nothing)
            broker.registerReference(pb.Referenceable())
            broker.dataReceived(data)
            broker.connectionLost(Failure(netError.ConnectionDone()))
            self.assertEqual(len(blamed), penalties)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_client(self) -> None:
        """At the client's end there is no audit; who waits is told that the connection is lost."""
        broker = Broker()
        broker.factory = pb.PBClientFactory()
        transport = StringTransport()
        broker.makeConnection(transport)
        greeted = broker.whenGreeted()
        self.patch(Reader, "_read", lambda reader, buffer, position: buffer.nothing)
        self.assertOwnFault(broker, transport, b"anything")
        broker.connectionLost(Failure(netError.ConnectionAborted()))
        self.failureResultOf(greeted, netError.ConnectionAborted)
        self.assertEqual(self.events, [])


class CommandTests(SynchronousTestCase):
    """Messages with a command, whose items break the rules, after the login."""

    def test_brokenRules(self) -> None:
        """They end the connection, and it is the peer's fault."""
        call = [b"message", 1, b"root", b"method", 1, [b"tuple"], [b"dictionary"]]
        update = [b"cachemessage", 1, 1, b"method", 1, [b"tuple"], [b"dictionary"]]
        for expression in (
            [5, [b"list"]],
            [[b"list"], 1],
            [b"\xff\xfe", [b"list"]],
            [b"version", [b"list"]],
            [b"version", 6, 6],
            call[:-1],
            [*call, [b"list"]],
            [*call[:3], [b"list"], *call[4:]],
            [*call[:3], b"\xff", *call[4:]],
            [*call[:3], 5, *call[4:]],
            [*update[:3], b"\xff", *update[4:]],
            [b"answer", [b"list"], 1],
            [b"answer", 7, [b"remote", b"root"]],
            [b"error", 7, [b"remote", b"root"]],
            [b"error", 7],
            [b"decref", [b"list"]],
            [b"decref", b"root"],
            [b"decref", 7],
            [b"decache", [b"list"]],
            [b"decache", 7],
            [b"uncache", [b"list"]],
            [b"uncache", 7],
            [b"other", 1, 2],
            [b"own", 1],
            [b"own", 1, 2, 3],
        ):
            broker = Own(False)
            broker.factory = pb.PBServerFactory(pb.Root())
            broker.makeConnection(StringTransport())
            broker.setNameForLocal("root", pb.Root())
            broker.dataReceived(banana.encode(b"pb"))
            broker.dataReceived(banana.encode(expression))
            self.assertTrue(broker.brokeProtocol, expression)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_ownCommands(self) -> None:
        """A subclass may have more commands."""
        broker = Own(False)
        broker.factory = pb.PBServerFactory(pb.Root())
        broker.makeConnection(StringTransport())
        broker.dataReceived(banana.encode(b"pb"))
        broker.dataReceived(banana.encode([b"own", 1, 2]))
        self.assertEqual(broker.got, [(1, 2)])


class Own(Broker):
    """A broker with a command of its own."""

    def __init__(self, isClient: bool) -> None:
        super().__init__(isClient)
        self.got: list[Any] = []

    def proto_own(self, first: Any, second: Any) -> None:
        """Take two items."""
        self.got.append((first, second))


class Reactor:
    """What a connection takes of a reactor to be told something from another thread."""

    def __init__(self) -> None:
        self._calls: list[Any] = []

    def callFromThread(self, *call: Any) -> None:
        """Call a function later."""
        self._calls.append(call)

    def goOn(self) -> None:
        """Call what is to be called."""
        for function, *arguments in self._calls:
            function(*arguments)


class ThreadTests(SynchronousTestCase):
    """References that are gone in another thread than the reactor's."""

    def test_anyThread(self) -> None:
        """The peer is told so by the reactor's thread, unless the connection is closed by then."""
        for disconnects in (False, True):
            broker = Broker()
            broker.factory = pb.PBClientFactory()
            transport: Any = StringTransport()
            transport.reactor = Reactor()
            broker.makeConnection(transport)
            broker.dataReceived(banana.encode([b"pb"]))
            transport.clear()
            self.patch(threadable, "ioThread", threadable.getThreadID())
            thread = Thread(target=lambda: broker.sendDecRef(7))  # noqa: B023
            thread.start()
            thread.join()
            self.assertEqual(transport.value(), b"")
            if disconnects:
                broker.connectionLost(Failure(netError.ConnectionDone()))
            transport.reactor.goOn()
            expected = [] if disconnects else [[b"decref", 7]]
            got: list[Any] = []
            stock = stockBanana()
            stock.expressionReceived = got.append
            stock.dataReceived(transport.value())
            self.assertEqual(got, expected)


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


class RoundTripTests(SynchronousTestCase):
    """How often a login crosses a wire that holds messages back."""

    def crossings(self, memory: MemoryServer, begin: Any) -> int:
        """
        Log in. At each step what both ends have written arrives at the other; give the number of
        steps until the login is done: two for each round trip.
        """
        memory.flush = lambda: None  # type: ignore[method-assign]
        done: list[Any] = []
        login = begin().addBoth(done.append)
        (pump,) = memory.pumps
        steps = 0
        while not done:
            steps += 1
            self.assertLess(steps, 20)
            self.assertTrue(pump.pump(advanceClock=False))
        self.assertNotIsInstance(done[0], Failure)
        self.successResultOf(login)
        return steps

    def server(self, stock: bool = False, policy: Policy | None = None) -> MemoryServer:
        """A server with alice."""
        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing(iterations=4096, md5=True)))
        if stock:
            root = AuthRoot(memory.authorizer, policy, memory.clock)
            memory = MemoryServer(memory.authorizer, factory=pb.PBServerFactory(root))
        elif policy:
            memory = MemoryServer(memory.authorizer, policy)
        memory.authorizer.setServiceCollection(memory.services)
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        return memory

    def test_twoRoundTrips(self) -> None:
        """Login and attach take two, at pbauth's server and at a stock one."""
        for stock in (False, True):
            memory = self.server(stock)
            begin = partial(memory.logIn, "alice", "secret", "game")
            self.assertEqual(self.crossings(memory, begin), 4)

    def test_stockClient(self) -> None:
        """A stock client waits for the greeting first, and so is late."""
        memory = self.server(policy=Policy(legacyLogin=True, defaultService="game"))

        def begin() -> Any:
            factory = pb.PBClientFactory()
            self.successResultOf(memory.connect(factory))
            return factory.login(UsernamePassword(b"alice", b"secret"))

        self.assertGreater(self.crossings(memory, begin), 4)

    def test_greetingIsChecked(self) -> None:
        """A server that greets in some other dialect is found out."""
        broker = Broker()
        broker.factory = pb.PBClientFactory()
        transport = StringTransport()
        broker.makeConnection(transport)
        broker.speakFirst()
        self.assertEqual(transport.value()[:4], banana.encode(b"pb"))
        greeted = broker.whenGreeted()
        broker.dataReceived(banana.encode([b"none", b"jam"]))
        self.assertTrue(transport.disconnecting or transport.aborting)
        broker.connectionLost(Failure(netError.ConnectionDone()))
        self.failureResultOf(greeted, ProtocolViolation)

    def test_greetedAlready(self) -> None:
        """Where the greeting was there before, nothing is said twice."""
        broker = Broker()
        broker.factory = pb.PBClientFactory()
        transport = StringTransport()
        broker.makeConnection(transport)
        broker.dataReceived(banana.encode([b"pb", b"none"]))
        said = transport.value()
        broker.speakFirst()
        self.assertEqual(transport.value(), said)
        self.assertTrue(broker.greeted)
