"""The client's half of a login."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, protocol
from twisted.internet import error as netError
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorUNIX
from twisted.spread import pb
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from pbauth import (
    AuthServerFactory,
    DefaultAuthorizer,
    Detached,
    EndReason,
    Hashing,
    IdentityConnector,
    InvalidName,
    InvalidPassword,
    KeyNotFound,
    Login,
    LoginTimeout,
    MechanismNotSupported,
    Password,
    PerspectiveClient,
    Policy,
    ProtocolViolation,
    ServerNotTrusted,
    Unauthorized,
    authIdentity,
    connect,
    getObjectAt,
    logIn,
)
from pbauth.mechanisms.scram import ScramVerifier
from pbauth.testing import MemoryServer, RecordingService
from tests.support.wire import WireTestCase


class ConnectTests(WireTestCase):
    """`connect`, over a wire in memory."""

    def test_ownPerspectiveByDefault(self) -> None:
        """Without a perspective's name, it is the user's own."""
        perspective = self.successResultOf(self.login())
        self.assertEqual(self.answer(perspective, "whoami"), "alice")

    def test_namedPerspective(self) -> None:
        """With a perspective's name, it is that one."""
        perspective = self.successResultOf(self.login("alice", "secret", "game", "shared"))
        self.assertEqual(self.answer(perspective, "whoami"), "shared")

    def test_inAwait(self) -> None:
        """In `async def` code refusals are caught by class."""

        async def run() -> str:
            try:
                await self.login("alice", "wrong", "game")
            except Unauthorized as refusal:
                return str(refusal)
            return "let in"

        self.assertIn("refused", self.successResultOf(Deferred.fromCoroutine(run())))

    def test_refusals(self) -> None:
        """Each refusal is its own error, and the connection is closed by then."""
        for login, error in [
            (("alice", "wrong", "game"), Unauthorized),
            (("mallory", "secret", "game"), Unauthorized),
            (("alice", "secret", "game", "bob"), KeyNotFound),
            (("alice", "secret", "nowhere"), KeyNotFound),
        ]:
            self.failureResultOf(self.login(*login), error)
            self.assertClosed()
        self.assertEqual(self.flushLoggedErrors(), [])

    def assertClosed(self) -> None:
        """Both ends of the last connection are closed."""
        pump = self.memory.pumps[-1]
        self.assertTrue(pump.clientIO.disconnected)
        self.assertTrue(pump.serverIO.disconnected)

    def test_wrongArguments(self) -> None:
        """What can't be right fails before anything is opened."""
        for login, error in [
            ((5, "secret", "game"), TypeError),
            ((b"alice", "secret", "game"), TypeError),
            (("alice", 5, "game"), TypeError),
            (("alice", b"secret", "game"), TypeError),
            (("alice", "secret", None), TypeError),
            (("alice", "secret", "game", 5), TypeError),
            (("alice", "secret", "game", "alice", "client"), TypeError),
            (("", "secret", "game"), InvalidName),
            (("a" * 256, "secret", "game"), InvalidName),
            (("al\nice", "secret", "game"), InvalidName),
            (("alice", "", "game"), InvalidPassword),
            (("alice", "\x07", "game"), InvalidPassword),
        ]:
            self.failureResultOf(self.login(*login), error)
        self.assertEqual(self.memory.pumps, [])

    def test_passwordIsDerivedOnce(self) -> None:
        """A `Password` that is kept logs in again, as another user as well."""
        password = Password("secret")
        for _ in range(3):
            self.successResultOf(self.login("alice", password, "game"))

    def test_serverThatDoesNotKnowTheVerifier(self) -> None:
        """A server that can't prove itself is not trusted, and the client hangs up."""
        verifier = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 4096)
        imposter = ScramVerifier(verifier.salt, verifier.iterations, verifier.storedKey, bytes(32))
        self.alice.setVerifiers({"SCRAM-SHA-256": imposter})
        self.failureResultOf(self.login(), ServerNotTrusted)
        self.assertClosed()

    def test_weakServer(self) -> None:
        """A server that asks for fewer iterations than are safe is not trusted."""
        weak = ScramVerifier.fromPassword("secret", b"0123456789abcdef", 1)
        self.alice.setVerifiers({"SCRAM-SHA-256": weak})
        self.failureResultOf(self.login(), ServerNotTrusted)
        self.assertClosed()

    def test_noMechanismInCommon(self) -> None:
        """A server that offers nothing the client would use is left, with nothing sent."""
        self.serve(Policy(mechanisms=[], legacyLogin=True))
        failure = self.failureResultOf(self.login(), MechanismNotSupported)
        self.assertEqual(failure.value.offered, ["PB-MD5"])
        self.assertClosed()

    def test_silence(self) -> None:
        """A server that does not answer is given up after the timeout."""
        authorizer = self.memory.authorizer
        authorizer.getIdentityRequest = lambda name: Deferred()
        login = self.login("alice", "secret", "game", timeout=7)
        self.memory.clock.advance(6.9)
        self.assertNoResult(login)
        self.memory.clock.advance(0.2)
        self.memory.flush()
        failure = self.failureResultOf(login, LoginTimeout)
        self.assertTrue(failure.check(netError.TimeoutError))
        self.assertTrue(failure.check(defer.TimeoutError))
        self.assertEqual(failure.value.seconds, 7)
        self.assertClosed()

    def test_cancel(self) -> None:
        """Cancelling a login closes what it opened."""
        self.memory.authorizer.getIdentityRequest = lambda name: Deferred()
        login = self.login()
        login.cancel()
        self.memory.flush()
        self.failureResultOf(login, defer.CancelledError)
        self.assertClosed()

    def test_hungUpOn(self) -> None:
        """A server that hangs up during the login fails it."""
        self.memory.authorizer.getIdentityRequest = lambda name: Deferred()
        login = self.login()
        self.memory.pumps[-1].serverIO.loseConnection()
        self.memory.flush()
        self.failureResultOf(login, pb.PBConnectionLost)

    def test_roundTrips(self) -> None:
        """After the greeting, login and attach take two round trips."""
        sent: list[tuple[str, Any]] = []
        opening = getObjectAt(self.memory, None, reactor=self.memory.clock)
        self.memory.flush()
        root = self.successResultOf(opening)
        send = root.broker._sendMessage

        def count(prefix: Any, perspective: Any, objectID: Any, message: Any, *rest: Any) -> Any:
            sent.append(message)
            return send(prefix, perspective, objectID, message, *rest)

        root.broker._sendMessage = count
        login = logIn(root, None, "game", "alice", Password("secret", renew=False))
        self.memory.flush()
        self.successResultOf(login)
        self.assertEqual(sent, [b"username", b"respond"])


class TrustTests(WireTestCase):
    """Where a password may go."""

    def test_plainTCPToElsewhere(self) -> None:
        """Plain TCP to another machine is refused before anything is opened."""
        for where in [
            ("192.0.2.1", 8787),
            ("example.com", 8787),
            ("tcp:192.0.2.1:8787", None),
            ("tcp:host=192.0.2.1:port=8787", None),
            (r"tcp:2001\:db8\:\:1:8787", None),
        ]:
            for attempt in (
                connect(*where, "alice", "secret", "game", reactor=self.memory.clock),
                getObjectAt(*where, reactor=self.memory.clock),
            ):
                failure = self.failureResultOf(attempt, ServerNotTrusted)
                self.assertIn("insecure=True", str(failure.value))

    def elsewhere(self) -> Any:
        """Give an endpoint in memory that seems to lead to another machine."""
        memory = self.memory

        class Elsewhere(MemoryServer):
            def connect(self, factory: Any) -> Any:
                connected = memory.connect(factory)
                memory.pumps[-1].clientIO.peerAddress = IPv4Address("TCP", "192.0.2.1", 8787)
                return connected

        return Elsewhere()

    def test_endpointToElsewhere(self) -> None:
        """An endpoint that turns out to lead elsewhere is left before a byte was sent."""
        login = connect(
            self.elsewhere(), None, "alice", "secret", "game", reactor=self.memory.clock
        )
        (pump,) = self.memory.pumps
        self.assertEqual(pump.clientIO.stream, [])
        self.memory.flush()
        self.failureResultOf(login, ServerNotTrusted)
        self.assertTrue(pump.serverIO.disconnected)

    def test_insecure(self) -> None:
        """Who says `insecure=True` gets it."""
        login = connect(
            self.elsewhere(),
            *(None, "alice", "secret", "game"),
            insecure=True,
            reactor=self.memory.clock,
        )
        self.memory.flush()
        self.successResultOf(login)

    def test_badEndpoints(self) -> None:
        """What is no endpoint is an error of the caller."""
        for where in [("nonsense", None), (5, None), (None, 8787)]:
            attempt = connect(*where, "alice", "secret", "game", reactor=self.memory.clock)
            self.failureResultOf(attempt, ValueError, TypeError)


class PiecesTests(WireTestCase):
    """The steps of the dance, one by one."""

    def test_authIdentity(self) -> None:
        """`authIdentity` gives the identity; with it one attaches by hand."""
        attempt = authIdentity(self.root(), "alice", "secret")
        self.memory.flush()
        identity = self.successResultOf(attempt)
        perspective = self.answer(identity, "attach", "game", "shared", None)
        self.assertEqual(self.answer(perspective, "whoami"), "shared")

    def test_logIn(self) -> None:
        """`logIn` gives the perspective on a root that the caller already has."""
        root = self.root()
        client = pb.Referenceable()
        attempt = logIn(root, client, "game", "alice", "secret", "shared")
        self.memory.flush()
        self.assertEqual(self.answer(self.successResultOf(attempt), "whoami"), "shared")
        self.assertIsInstance(self.game.events[0].clientref, pb.RemoteReference)

    def test_logInLeavesTheConnectionOpen(self) -> None:
        """Who opened the connection closes it: a failed `logIn` can be tried again."""
        root = self.root()
        for password, error in [("wrong", Unauthorized), ("secret", None)]:
            attempt = logIn(root, None, "game", "alice", password)
            self.memory.flush()
            if error:
                self.failureResultOf(attempt, error)
            else:
                self.successResultOf(attempt)


class IdentityConnectorTests(WireTestCase):
    """One connection and one login for any number of services."""

    def setUp(self) -> None:
        super().setUp()
        self.connector = IdentityConnector(
            self.memory, None, "alice", "secret", reactor=self.memory.clock
        )

    def test_oneLogin(self) -> None:
        """However often it is asked, also while the login is under way, it logs in once."""
        attempts = [
            self.connector.requestService("game"),
            self.connector.requestService("game", "shared"),
            self.connector.requestLogin(),
        ]
        self.memory.flush()
        own, shared, _ = map(self.successResultOf, attempts)
        again = self.connector.requestService("game")
        self.memory.flush()
        self.assertEqual(self.answer(self.successResultOf(again), "whoami"), "alice")
        self.assertEqual(self.answer(own, "whoami"), "alice")
        self.assertEqual(self.answer(shared, "whoami"), "shared")
        self.assertEqual(len(self.memory.pumps), 1)

    def test_failureForAll(self) -> None:
        """A failed login fails for all who wait; the next request tries again."""
        self.alice.locked = True
        attempts = [self.connector.requestService("game"), self.connector.requestLogin()]
        self.memory.flush()
        for attempt in attempts:
            self.failureResultOf(attempt, Unauthorized)
        self.alice.locked = False
        again = self.connector.requestLogin()
        self.memory.flush()
        self.successResultOf(again)
        self.assertTrue(self.memory.pumps[0].clientIO.disconnected)

    def test_disconnect(self) -> None:
        """`disconnect` fires when the connection is closed; it may be called any time."""
        self.successResultOf(self.connector.disconnect())
        attempt = self.connector.requestService("game")
        self.memory.flush()
        self.successResultOf(attempt)
        closed = self.connector.disconnect()
        self.memory.flush()
        self.successResultOf(closed)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])

    def test_disconnectDuringLogin(self) -> None:
        """Who waits for a login that is given up is told."""
        attempt = self.connector.requestService("game")
        self.connector.disconnect()
        self.memory.flush()
        self.failureResultOf(attempt, defer.CancelledError)
        self.assertTrue(self.memory.pumps[0].clientIO.disconnected)

    def test_connectionLost(self) -> None:
        """After the connection was lost the next request logs in again."""
        attempt = self.connector.requestLogin()
        self.memory.flush()
        self.memory.disconnect(self.successResultOf(attempt))
        again = self.connector.requestService("game")
        self.memory.flush()
        self.assertEqual(self.answer(self.successResultOf(again), "whoami"), "alice")

    def test_serviceWithoutKey(self) -> None:
        """A service without a key fails; the login is kept."""
        attempt = self.connector.requestService("chat")
        self.memory.flush()
        self.failureResultOf(attempt, KeyNotFound)
        self.assertFalse(self.memory.pumps[0].clientIO.disconnected)


class Banner(protocol.Protocol):
    """A server that says something that is not Perspective Broker, if anything."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(self.factory.banner)


class OverTCPTests(TestCase):
    """`connect` to whatever may stand behind a port."""

    def listen(self, factory: Any) -> int:
        """Listen on a free port of the loopback interface, and give its number."""
        from twisted.internet import reactor

        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def serve(self, iterations: int = 4096) -> tuple[int, Any]:
        """Run a server with alice."""
        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing(iterations=iterations)))
        memory.authorizer.setServiceCollection(memory.services)
        game = RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        return self.listen(AuthServerFactory(memory.authorizer)), game

    def speak(self, banner: bytes) -> int:
        """Run a server that says a banner."""
        factory = protocol.ServerFactory.forProtocol(Banner)
        factory.banner = banner
        return self.listen(factory)

    def attempt(self, port: int, **options: Any) -> Any:
        """Log in as alice."""
        return connect("127.0.0.1", port, "alice", "secret", "game", **options)

    async def test_noDelay(self) -> None:
        """Neither end lets a small message wait for the acknowledgement of the one before."""
        port, game = self.serve()
        perspective = await self.attempt(port)
        (session,) = game.authorizer.sessions
        for broker in (perspective.broker, session.broker):
            self.assertTrue(broker.transport.getTcpNoDelay())
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()
        while not game.kinds().count("detached"):
            await self.turn()

    async def test_allForms(self) -> None:
        """Host and port, an endpoint string and an endpoint all work; derivation in a thread."""
        from twisted.internet import reactor

        port, game = self.serve(iterations=20_000)
        for host, number in [
            ("127.0.0.1", port),
            ("localhost", port),
            (f"tcp:127.0.0.1:{port}", None),
            (TCP4ClientEndpoint(reactor, "127.0.0.1", port), None),
        ]:
            perspective = await connect(host, number, "alice", "secret", "game")
            self.assertEqual(await perspective.callRemote("whoami"), "alice")
            perspective.broker.transport.loseConnection()
            await perspective.broker.whenClosed()
        while game.kinds().count("detached") < 4:
            await self.turn()

    async def turn(self) -> None:
        """Let the reactor run once."""
        from twisted.internet import reactor

        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn

    async def test_unixSocket(self) -> None:
        """A UNIX socket needs no TLS."""
        from twisted.internet import reactor

        if not IReactorUNIX.providedBy(reactor):
            raise SkipTest("There are no UNIX sockets here.")
        memory = MemoryServer()
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        path = "s" + self.id()[-5:]
        port = reactor.listenUNIX(path, AuthServerFactory(memory.authorizer))
        self.addCleanup(port.stopListening)
        perspective = await connect(f"unix:{path}", None, "alice", "secret", "game")
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()

    async def test_nothing(self) -> None:
        """Nobody listens: the connection is refused."""
        port, _ = self.serve()
        await self._cleanups.pop(-1)[0]()
        with self.assertRaises(netError.ConnectionRefusedError):
            await self.attempt(port)

    async def test_silence(self) -> None:
        """A server that says nothing: timed out."""
        with self.assertRaises(LoginTimeout):
            await self.attempt(self.speak(b""), timeout=0.2)

    async def test_http(self) -> None:
        """A server that speaks HTTP: not the protocol."""
        banner = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n" + b"\r\n" * 20
        with self.assertRaises(ProtocolViolation):
            await self.attempt(self.speak(banner), timeout=5)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_stockPB(self) -> None:
        """A server of stock PB, with a portal or a root of its own: no mechanism in common."""
        from twisted.cred.portal import Portal

        class Root(pb.Root):
            def remote_username(self, name: str) -> str:
                return name

        for root in (Portal(None), Root(), pb.Root()):
            with self.assertRaises(MechanismNotSupported):
                await self.attempt(self.listen(pb.PBServerFactory(root)))
        # The stock server's own log of what it was asked.
        self.flushLoggedErrors(pb.NoSuchMethod, TypeError)

    async def test_detachedElsewhere(self) -> None:
        """A session that the server ended answers `Detached` over TCP as well."""
        port, game = self.serve()
        perspective = await self.attempt(port)
        for session in game.authorizer.sessions:
            session.end(EndReason.ADMINISTRATOR)
        with self.assertRaises(Detached):
            await perspective.callRemote("whoami")
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()


class LoginTests(SynchronousTestCase):
    """The one value that says who logs in where."""

    def test_mistakes(self) -> None:
        """Whatever can't be right is refused when it is made, and nothing is opened."""
        wrong: list[tuple[tuple[Any, ...], type[Exception]]] = [
            (("tls:h:1", 5, "secret"), TypeError),
            (("tls:h:1", "", "secret"), InvalidName),
            (("tls:h:1", "alice", 5), TypeError),
            (("tls:h:1", "alice", ""), InvalidPassword),
            (("tls:h:1", "alice", "secret", 5), TypeError),
            (("tls:h:1", "alice", "secret", "a\nb"), InvalidName),
            (("tls:h:1", "alice", "secret", "game", 5), TypeError),
            (("tls:h:1", "alice", "secret", "game", None, object()), TypeError),
        ]
        for arguments, error in wrong:
            self.assertRaises(error, Login, *arguments)

    def test_secret(self) -> None:
        """Its repr shows no password."""
        self.assertNotIn("secret", repr(Login("tls:h:1", "alice", "secret", "game")))

    def test_run(self) -> None:
        """It connects and attaches; without a service it only logs in."""
        memory = MemoryServer()
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        for service, method, expected in [
            ("game", "whoami", "alice"),
            (None, "keys", [("game", "alice")]),
        ]:
            running = Login(memory, "alice", "secret", service).run(memory.clock)
            memory.flush()
            answer = self.successResultOf(running).callRemote(method)
            memory.flush()
            self.assertEqual(self.successResultOf(answer), expected)

    def test_staying(self) -> None:
        """A client that stays logged in takes it, too."""
        memory = MemoryServer()
        RecordingService("game", memory.services, memory.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        login = Login(memory, "alice", "secret", "game")
        client = PerspectiveClient(login, reactor=memory.clock)
        client.startService()
        memory.flush()
        self.successResultOf(client.whenAttached())
        client.stopService()
        memory.flush()
        self.assertRaises(
            TypeError, PerspectiveClient, Login(memory, "alice", "secret"), reactor=memory.clock
        )
