"""Peers that are gone without a word are noticed; those that are there are left alone."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.internet import ssl
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.spread import pb

from pbauth import (
    AuthRoot,
    AuthServerFactory,
    Broker,
    DefaultAuthorizer,
    Hashing,
    Password,
    Policy,
    connect,
)
from pbauth.net.certificates import makeCertificate
from pbauth.testing import MemoryServer, RecordingService
from pbauth.wire import keepalive
from pbauth.wire.keepalive import KeepAlive, _progress
from pbauth.wire.twistedprivate import bytesWaiting
from tests.support.proxies import ProxyFactory
from tests.support.serving import AwaitedPerspective, AwaitedService, ServingTestCase
from tests.support.tls import TLSTestCase
from tests.support.wire import WireTestCase

#: Default of the policy.
INTERVAL = 30

#: Remembers its key.
SECRET = Password("secret")


class PingTestCase(WireTestCase):
    """Counts what the server asks its clients."""

    def serverBroker(self) -> Any:
        """The server's end of the last connection with a session."""
        return list(self.memory.authorizer.sessions)[-1].broker

    def countCalls(self) -> list[Any]:
        """A list of what the server will call at its client."""
        broker = self.serverBroker()
        send = broker.sendCall
        called: list[Any] = []

        def count(*message: Any) -> Any:
            if message[0] == b"message":
                called.append(message[2:4])
            return send(*message)

        broker.sendCall = count
        return called


class ServerTests(PingTestCase):
    """The server's end."""

    def test_idle(self) -> None:
        """A client that says nothing by itself is asked once in an interval, and stays."""
        perspective = self.successResultOf(self.login())
        called = self.countCalls()
        self.memory.advance(10 * INTERVAL)
        self.assertEqual(called, [(b"pbauth", b"ping")] * 10)
        self.assertEqual(self.game.kinds(), ["attached"])
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_busy(self) -> None:
        """A client that talks is not asked."""
        perspective = self.successResultOf(self.login())
        called = self.countCalls()
        for _ in range(10 * INTERVAL):
            self.memory.advance(1)
            self.answer(perspective, "whoami")
        self.assertEqual(called, [])

    def test_cut(self) -> None:
        """A client that is gone is detached, once, in two intervals."""
        perspective = self.successResultOf(self.login())
        self.memory.cut(perspective)
        self.memory.advance(2 * INTERVAL - 1)
        self.assertEqual(self.game.kinds(), ["attached"])
        self.memory.advance(1)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.memory.advance(10 * INTERVAL)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_cutAtAnyTime(self) -> None:
        """Whenever the last word was: at least one interval later, at most two."""
        for seconds in range(0, 2 * INTERVAL, 4):
            self.serve()
            perspective = self.successResultOf(self.login())
            self.memory.advance(seconds)
            self.answer(perspective, "whoami")
            self.memory.cut(perspective)
            self.memory.advance(INTERVAL)
            self.assertEqual(self.game.kinds(), ["attached"], seconds)
            self.memory.advance(INTERVAL)
            self.assertEqual(self.game.kinds(), ["attached", "detached"], seconds)

    def test_manyAtAnyTime(self) -> None:
        """However many there are, and whenever they came: each in its time, by one timer."""
        gone: dict[int, float] = {}
        for number in range(40):
            perspective = self.successResultOf(self.login("alice", SECRET, "game"))
            begun = self.memory.clock.seconds()
            list(self.memory.authorizer.sessions)[-1].broker.notifyOnDisconnect(
                lambda number=number, begun=begun: gone.setdefault(
                    number, self.memory.clock.seconds() - begun
                )
            )
            self.memory.cut(perspective)
            self.assertEqual(len(self.memory.clock.getDelayedCalls()), 1)
            self.memory.advance(number * 0.37 % 5)
        self.memory.advance(2 * INTERVAL)
        self.assertEqual(len(gone), 40)
        self.assertGreaterEqual(min(gone.values()), 1.4 * INTERVAL)
        self.assertLessEqual(max(gone.values()), 2 * INTERVAL)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_notAllAtOnce(self) -> None:
        """Connections that came at different times are not looked at in one go."""
        asked: list[float] = []
        for _ in range(30):
            self.successResultOf(self.login("alice", SECRET, "game"))
            broker = self.serverBroker()
            broker.sendCall = lambda *message: asked.append(self.memory.clock.seconds())
            self.memory.advance(0.5)
        self.memory.advance(INTERVAL)
        self.assertGreater(len(set(asked)), 25)

    def test_lateTimer(self) -> None:
        """A reactor that was busy for long looks at everybody once, not as often as it missed."""
        self.successResultOf(self.login())
        called = self.countCalls()
        self.memory.clock.advance(50 * INTERVAL)
        self.assertEqual(self.serverBroker().idle, 1)
        self.memory.advance(INTERVAL)
        self.assertEqual((len(called), self.game.kinds()), (1, ["attached"]))

    def test_littleMemory(self) -> None:
        """A question leaves nothing behind."""
        self.successResultOf(self.login())
        broker = self.serverBroker()
        empty = sys.getsizeof(broker.waitingForAnswers)
        self.memory.advance(1.9 * INTERVAL)
        self.assertEqual(broker.waitingForAnswers, {})
        self.assertEqual(sys.getsizeof(broker.waitingForAnswers), empty)

    def test_interval(self) -> None:
        """The policy says how often; by default each half minute."""
        self.serve(Policy(pingInterval=5))
        perspective = self.successResultOf(self.login())
        called = self.countCalls()
        self.memory.advance(20)
        self.assertEqual(len(called), 4)
        self.memory.cut(perspective)
        self.memory.advance(10)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(Policy().pingInterval, INTERVAL)

    def test_off(self) -> None:
        """Where the policy says so, nobody is asked, and no timer runs."""
        for off in (0, None):
            self.serve(Policy(pingInterval=off))
            self.successResultOf(self.login())
            self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_oneTimer(self) -> None:
        """There is one timer for a connection, however many logins there are on it."""
        root = self.root()
        for _ in range(3):
            client, challenger = self.scram(root)
            response = client.get_client_final().encode()
            self.answer(challenger, "respond", response, "game", "alice", None)
            self.assertEqual(len(self.memory.clock.getDelayedCalls()), 1)
        self.memory.disconnect(root)
        self.assertEqual(self.memory.clock.getDelayedCalls(), [])

    def test_notBeforeLogin(self) -> None:
        """Before the login there is the grace time, and no more."""
        self.serve(Policy(graceTime=1000))
        root = self.root()
        self.memory.cut(root)
        self.memory.advance(100)
        self.assertEqual(len(self.memory.clock.getDelayedCalls()), 1)

    def test_callsInFlight(self) -> None:
        """What waits for an answer of the client that is gone is told."""
        client = pb.Referenceable()
        perspective = self.successResultOf(self.login("alice", "secret", "game", client=client))
        self.memory.cut(perspective)
        clientref: Any = self.game.events[0].clientref
        waiting = clientref.callRemote("anything")
        self.memory.advance(2 * INTERVAL)
        self.failureResultOf(waiting, pb.PBConnectionLost)

    def test_whoDoesNotAnswer(self) -> None:
        """
        A peer that talks is not dropped for not answering, and there is one question at a time;
        once it is silent, it goes.
        """
        self.successResultOf(self.login())
        called = self.countCalls()
        pump = self.memory.pumps.pop()
        for _ in range(10 * INTERVAL):
            self.memory.advance(1)
            if self.memory.clock.seconds() > INTERVAL - 1:
                pump.server.dataReceived(b"\x02\x80\x07\x82version\x06\x81")
        self.assertEqual(len(called), 1)
        self.memory.pumps.append(pump)
        pump.clientIO.getOutBuffer()
        pump.serverIO.getOutBuffer()
        self.memory.advance(2 * INTERVAL)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])


class UnsentTests(PingTestCase):
    """A client that is slow to take much."""

    def waiting(self, amounts: list[int]) -> str:
        """
        The client says nothing, and at each look so many bytes wait to be sent; give what the
        service saw last.
        """
        self.serve()
        perspective = self.successResultOf(self.login())
        transport = self.serverBroker().transport
        transport.dataBuffer = b""
        transport.offset = 0
        self.memory.cut(perspective)
        for amount in amounts:
            transport._tempDataLen = amount
            self.memory.advance(INTERVAL / 2)
        return self.game.kinds()[-1]

    def test_taking(self) -> None:
        """While it takes what was sent before, it is not dropped."""
        self.assertEqual(self.waiting([9, 8, 7, 6, 5, 4, 3, 2]), "attached")

    def taking(self, looks: list[tuple[int, int]]) -> str:
        """
        Like `waiting`, where the system tells at each look how many bytes wait in it, and how many
        the client has acknowledged.
        """
        now = [(0, 0)]
        self.patch(keepalive, "bytesQueued", lambda theSocket: now[0][0])
        self.patch(keepalive, "bytesAcknowledged", lambda theSocket: now[0][1])
        self.serve()
        perspective = self.successResultOf(self.login())
        self.memory.cut(perspective)
        for look in looks:
            now[0] = look
            self.memory.advance(INTERVAL / 2)
        return self.game.kinds()[-1]

    def test_inTheSystem(self) -> None:
        """What the system has not sent yet counts, too, even if more and more is written."""
        self.assertEqual(self.taking([(90 - n, 10 + n) for n in range(9)]), "attached")
        self.assertEqual(self.taking([(90 + 5 * n, 10 + n) for n in range(9)]), "attached")

    def test_systemStopped(self) -> None:
        """If the client acknowledges nothing more, it is dropped."""
        self.assertEqual(self.taking([(90, 10), (89, 11), *[(89, 12)] * 3]), "detached")

    def test_questionArrived(self) -> None:
        """
        Once the question has arrived, which stands behind what waited, there is an interval for
        the answer; that other things arrive after it is not a sign of life.
        """
        arrived = [(50, 10), (50, 20), (50, 40), (50, 80)]
        after = [(50, 90), (50, 100), (50, 110)]
        self.assertEqual(self.taking([*arrived, *after[:1]]), "attached")
        self.assertEqual(self.taking([*arrived, *after]), "detached")

    def test_nothingWaited(self) -> None:
        """A question that has to wait for nothing gets no more time than it always had."""
        self.assertEqual(self.taking([(0, 10), (0, 10), (0, 90)]), "attached")
        self.assertEqual(self.taking([(0, 10), (0, 10), (0, 90), (0, 91)]), "detached")

    def test_notTaking(self) -> None:
        """If it takes nothing more, it is."""
        self.assertEqual(self.waiting([9, 8, 8, 8, 8, 8]), "detached")

    def test_writingIsNoSign(self) -> None:
        """That more is to be sent is not the peer's doing."""
        self.assertEqual(self.waiting([1, 2, 3, 4, 5, 6]), "detached")


class StockTests(PingTestCase):
    """Other brokers than pbauth's."""

    def serve(self, policy: Policy | None = None, **options: Any) -> None:
        authorizer = DefaultAuthorizer(hashing=Hashing(iterations=4096, md5=True))
        super().serve(policy, authorizer=authorizer, **options)
        authorizer.setServiceCollection(self.memory.services)

    def test_stockClient(self) -> None:
        """A client of stock Twisted is asked as well; it answers, and nobody logs anything."""
        self.serve(Policy(legacyLogin=True, defaultService="game"))
        factory = pb.PBClientFactory()
        self.successResultOf(self.memory.connect(factory))
        login = factory.login(UsernamePassword(b"alice", b"secret"), pb.Referenceable())
        self.memory.flush()
        perspective = self.successResultOf(login)
        self.assertIs(type(perspective.broker), pb.Broker)
        called = self.countCalls()
        logged: list[Any] = []
        from twisted.python import log

        log.addObserver(logged.append)
        self.addCleanup(log.removeObserver, logged.append)
        self.memory.advance(10 * INTERVAL)
        self.assertEqual(len(called), 10)
        self.assertEqual(logged, [])
        self.assertEqual(self.answer(perspective, "whoami"), "alice")
        self.memory.cut(perspective)
        self.memory.advance(2 * INTERVAL)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_stockServer(self) -> None:
        """Under a stock broker nobody is asked."""
        authorizer = DefaultAuthorizer(hashing=Hashing.CHEAPEST)
        memory = MemoryServer()
        root = AuthRoot(authorizer, reactor=memory.clock)
        self.memory = MemoryServer(authorizer, factory=pb.PBServerFactory(root))
        authorizer.setServiceCollection(self.memory.services)
        RecordingService("game", self.memory.services, authorizer)
        self.memory.addUser("alice", "secret", ("game", "alice"))
        perspective = self.successResultOf(self.login())
        called = self.countCalls()
        self.memory.advance(10 * INTERVAL)
        self.assertEqual((called, memory.clock.getDelayedCalls()), ([], []))
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_stockServerIsAsked(self) -> None:
        """A stock server answers a client that asks; that is a sign of life."""
        factory = pb.PBServerFactory(pb.Root())
        self.memory = MemoryServer(factory=factory)
        root = self.root()
        KeepAlive(INTERVAL, self.memory.clock).add(root.broker)
        self.memory.advance(10 * INTERVAL)
        self.assertFalse(root.broker.disconnected)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.memory.cut(root)
        self.memory.advance(2 * INTERVAL)
        self.assertTrue(root.broker.disconnected)

    def test_ownObjectOfThatName(self) -> None:
        """An application's object of that name comes first."""

        class Own(pb.Referenceable):
            def remote_ping(self) -> str:
                return "mine"

        broker = Broker()
        own = Own()
        broker.setNameForLocal("pbauth", own)
        self.assertIs(broker.localObjectForID(b"pbauth"), own)
        self.assertIsNone(broker.localObjectForID(b"nothing"))


class KeepAliveTests(TLSTestCase):
    """What TCP is told."""

    def assertKeptAlive(self, broker: Any, seconds: int = INTERVAL) -> None:
        """TCP looks after the peer of this connection."""
        theSocket = broker.transport.socket
        self.assertTrue(theSocket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle = theSocket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            self.assertEqual(idle, seconds)

    async def test_tls(self) -> None:
        """Over TLS, with pbauth's broker and with Twisted's own."""
        for stock in (False, True):
            perspective = await self.attempt(self.serve(stock=stock), trust=self.pin)
            (session,) = self.authorizer.sessions
            self.assertEqual(isinstance(session.broker, Broker), not stock)
            self.assertKeptAlive(session.broker)
            await self.hangUp(perspective)

    async def test_tcp(self) -> None:
        """By plain TCP; and not where pings are off."""
        from twisted.internet import reactor

        for interval in (7.2, None):
            self.serve()
            factory = AuthServerFactory(self.authorizer, Policy(pingInterval=interval))
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
            self.addCleanup(port.stopListening)
            perspective = await connect("127.0.0.1", port.getHost().port, "alice", "secret", "game")
            (session,) = self.authorizer.sessions
            if interval:
                self.assertKeptAlive(session.broker, 7)
            else:
                theSocket = session.broker.transport.socket
                self.assertFalse(theSocket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            await self.hangUp(perspective)

    async def test_unix(self) -> None:
        """A UNIX socket has nothing of the kind, and needs it not."""
        from twisted.internet import reactor

        self.serve()
        path = os.path.relpath(self.mktemp())
        factory = AuthServerFactory(self.authorizer)
        port = await UNIXServerEndpoint(reactor, path).listen(factory)
        self.addCleanup(port.stopListening)
        endpoint = UNIXClientEndpoint(reactor, path)
        perspective = await connect(endpoint, None, "alice", "secret", "game")
        (session,) = self.authorizer.sessions
        theSocket = session.broker.transport.socket
        self.assertEqual(theSocket.family, socket.AF_UNIX)
        self.assertFalse(theSocket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        await self.hangUp(perspective)


class Sending(Protocol):
    """The server's end, which sends what the system can't take at once."""

    def connectionMade(self) -> None:
        self.factory.made.append(self.transport)  # type: ignore[union-attr]


class Taking(Protocol):
    """The client's end, which takes a part, and then nothing more."""

    received = most = 0

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self.received > self.most:
            self.transport.pauseProducing()  # type: ignore[union-attr]


class ProgressTests(TLSTestCase):
    """How far a peer has come with what is sent to it, as the system tells it."""

    def setUp(self) -> None:
        self.factory: Any = Factory.forProtocol(Sending)
        self.factory.made = []

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor go on until something is so."""
        from twisted.internet import reactor

        while not condition():
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]

    async def assertProgress(self, endpoint: Any) -> None:
        """It is known that a client takes a part of what is sent, and how much is left."""
        client: Any = await endpoint.connect(Factory.forProtocol(Taking))
        self.addCleanup(client.transport.abortConnection)
        await self.until(lambda: self.factory.made)
        transport = self.factory.made.pop()
        transport.write(bytes(30_000_000))
        await self.until(lambda: client.received and bytesWaiting(transport) > 20_000_000)
        before, end = _progress(transport)
        client.most = 5_000_000
        client.transport.resumeProducing()
        await self.until(lambda: client.received > client.most)
        after, sameEnd = _progress(transport)
        self.assertEqual(sameEnd, end)
        self.assertLess(before, after)
        self.assertLess(after, end)

    async def test_tcp(self) -> None:
        """On TCP."""
        from twisted.internet import reactor

        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        await self.assertProgress(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port))

    async def test_tls(self) -> None:
        """Over TLS, where it is counted in encrypted bytes."""
        from twisted.internet import reactor

        number = self.listen(self.factory, makeCertificate())
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        await self.assertProgress(wrapClientTLS(ssl.CertificateOptions(), tcp))

    async def test_unix(self) -> None:
        """On a UNIX socket."""
        from twisted.internet import reactor

        path = os.path.relpath(self.mktemp())
        port = await UNIXServerEndpoint(reactor, path).listen(self.factory)
        self.addCleanup(port.stopListening)
        await self.assertProgress(UNIXClientEndpoint(reactor, path))


class ProxyTests(ServingTestCase):
    """Over real TCP, through a proxy that stops forwarding."""

    async def test_cut(self) -> None:
        """The server detaches a client whose cable was cut, once; another one stays."""
        from twisted.internet import reactor

        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing.CHEAPEST))
        memory.authorizer.setServiceCollection(memory.services)
        game = AwaitedService("game", memory.services, memory.authorizer)
        game.perspectiveClass = AwaitedPerspective
        memory.addUser("alice", "secret", ("game", "alice"))
        memory.addUser("bob", "secret", ("game", "bob"))
        factory = AuthServerFactory(memory.authorizer, Policy(pingInterval=0.2))
        server = self.listen(factory)
        proxy = ProxyFactory("127.0.0.1", server)
        port = reactor.listenTCP(0, proxy, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.addCleanup(proxy.close)
        bob = await connect("127.0.0.1", server, "bob", "secret", "game")
        self.addCleanup(bob.broker.transport.loseConnection)
        number = port.getHost().port
        alice = await connect("127.0.0.1", number, "alice", "secret", "game")
        self.addCleanup(alice.broker.transport.loseConnection)
        await game.whenHappened(2)
        proxy.cut()
        await game.whenHappened(3)
        self.assertEqual(
            [(event.kind, event.identityName) for event in game.events],
            [("attached", "bob"), ("attached", "alice"), ("detached", "alice")],
        )
        # He said nothing by himself, either.
        self.assertEqual(await bob.callRemote("whoami"), "bob")
