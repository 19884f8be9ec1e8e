"""TLS: which servers a client trusts, and what a man in the middle gets."""

from __future__ import annotations

import os
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import protocol, ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.internet.error import ConnectionClosed, ConnectionRefusedError
from twisted.logger import LogLevel, globalLogPublisher
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase

from pbauth import (
    AuthServerFactory,
    LoginTimeout,
    MechanismNotSupported,
    Password,
    Policy,
    ServerNotTrusted,
    Unauthorized,
    changePassword,
    connect,
    getObjectAt,
)
from pbauth.accounts.records import Record
from pbauth.admin.remote import RemoteAdministration
from pbauth.errors import NotProtected
from pbauth.net.certificates import makeCertificate
from pbauth.net.fingerprints import checkPin, fingerprintOf
from pbauth.net.strports import tlsAddress
from pbauth.net.trust import fetchFingerprint, isVouchedFor
from tests.support.tls import PLUS, Relay, TLSTestCase, pinOf

SCRAM = "SCRAM-SHA-256"


class FingerprintTests(SynchronousTestCase):
    """How a public key is named."""

    def test_fingerprint(self) -> None:
        """It is that of the key: another certificate of the same key has the same."""
        pem = makeCertificate()
        certificate = x509.load_pem_x509_certificate(pem)
        pin = fingerprintOf(certificate)
        self.assertRegex(pin, r"^SHA256:[A-Za-z0-9+/]{43}=$")
        self.assertEqual(checkPin(pin), pin)
        self.assertEqual(checkPin(pin.rstrip("=")), pin)
        self.assertNotEqual(fingerprintOf(x509.load_pem_x509_certificate(makeCertificate())), pin)

    def test_notFingerprints(self) -> None:
        """What is none is said to be none."""
        for bad in ("", "SHA256:", "SHA256:AAAA", "MD5:AAAA", "SHA256:" + "!" * 44):
            with self.assertRaises(ValueError):
                checkPin(bad)


class Silent:
    """A resolver that finds nothing, until nobody asks any more."""

    def resolveHostName(self, receiver: Any, *arguments: Any, **options: Any) -> Any:
        receiver.resolutionBegan(self)
        self.receiver = receiver
        return self

    def cancel(self) -> None:
        self.receiver.resolutionComplete()


class TrustTests(TLSTestCase):
    """Whom a client trusts."""

    async def test_trusted(self) -> None:
        """A file of certificates, a certificate or a pin; by name and by address."""
        port = self.serve()
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self.pem)
        certificate = ssl.Certificate.loadPEM(self.pem)
        for trust in (path, certificate, self.pin, self.pin.rstrip("=")):
            for host in ("localhost", "127.0.0.1"):
                perspective = await self.attempt(port, host=host, trust=trust)
                self.assertEqual(await self.works(perspective), PLUS)

    async def test_notTrusted(self) -> None:
        """Another key, another authority, an expired certificate: not trusted, nobody attached."""
        port = self.serve()
        other = makeCertificate()
        for trust in (
            None,
            fingerprintOf(x509.load_pem_x509_certificate(other)),
            ssl.Certificate.loadPEM(other),
        ):
            with self.assertRaises(ServerNotTrusted) as raised:
                await self.attempt(port, trust=trust)
            self.assertIn("not one that you trust", str(raised.exception))
        old = makeCertificate(days=0.5)
        expired = self.listen(AuthServerFactory(self.authorizer), old)
        with self.assertRaises(ServerNotTrusted):
            await self.attempt(expired, trust=ssl.Certificate.loadPEM(old))
        wrongName = makeCertificate(("example.com",))
        elsewhere = self.listen(AuthServerFactory(self.authorizer), wrongName)
        with self.assertRaises(ServerNotTrusted):
            await self.attempt(elsewhere, trust=ssl.Certificate.loadPEM(wrongName))
        self.assertEqual(self.game.events, [])

    async def test_sslEndpoints(self) -> None:
        """Twisted's endpoints `ssl:`, which would take any certificate, are no way around."""
        port = self.serve()
        for more in ("", ":timeout=5", ":hostname=localhost", f":caCertsDir={self.mktemp()}"):
            with self.assertRaises(ServerNotTrusted):
                await connect(f"ssl:localhost:{port}{more}", None, "alice", "secret", "game")
        where = f"ssl:host=localhost:port={port}"
        perspective = await connect(where, None, "alice", "secret", "game", trust=self.pin)
        self.assertEqual(await self.works(perspective), PLUS)

    def test_addresses(self) -> None:
        """Which endpoint strings lead over TLS to a host and a port."""
        for description, address in [
            ("tls:example.com:87", ("example.com", 87)),
            ("ssl:host=example.com:port=87:timeout=5", ("example.com", 87)),
            (r"tls:\:\:1:87", ("::1", 87)),
            ("tls:example.com:87:trustRoots=/etc/mine", None),
            ("tcp:example.com:87", None),
            ("unix:/run/pbauth", None),
            ("nonsense", None),
        ]:
            self.assertEqual(tlsAddress(description), address)
        for bad in (
            "tls:example.com",
            "tls:example.com:",
            "tls:example.com:x",
            "tls:a:0",
            "tls:a:65536",
        ):
            with self.assertRaises(ValueError):
                tlsAddress(bad)

    async def test_mistakes(self) -> None:
        """What `trust` can't be, and where it can't be used."""
        junk = self.mktemp()
        with open(junk, "w") as file:
            file.write("junk")
        for where, trust in [
            ("tls:localhost:1", junk),
            ("tls:localhost:1", junk + "-not-there"),
            ("tls:localhost:1", "SHA256:short"),
            ("tls:localhost", "SHA256:" + "A" * 43),
            ("tcp:127.0.0.1:1", junk),
        ]:
            with self.assertRaises(ValueError):
                await connect(where, None, "alice", "secret", "game", trust=trust)
        self.assertTrue(os.path.exists(junk))


class Recorder(protocol.Protocol):
    """A server that keeps what it is sent, and knows when it is alone again."""

    transport: Any

    def connectionMade(self) -> None:
        self.factory.made += 1

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.lost += 1


class FetchTests(TLSTestCase):
    """Looking at a server's key, before it is trusted."""

    def record(self, pem: bytes | None = None, **options: Any) -> int:
        """Run a server that keeps what it is sent; without TLS if there is no certificate."""
        from twisted.internet import reactor

        self.factory: Any = protocol.ServerFactory.forProtocol(Recorder)
        self.factory.made = self.factory.lost = 0
        self.factory.received = b""
        if pem is not None:
            return self.listen(self.factory, pem, **options)
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def closed(self) -> None:
        """Wait until the server has no connection."""
        while self.factory.lost < self.factory.made:
            await self.turn()

    def fetch(self, host: str, port: int, timeout: float = 5) -> Any:
        """Look."""
        from twisted.internet import reactor

        return fetchFingerprint(reactor, host, port, timeout)

    async def test_fetched(self) -> None:
        """Whoever signed the certificate, for whom: the fingerprint; and nothing was sent."""
        for pem in (makeCertificate(), makeCertificate(("example.com",), days=0.5)):
            pin = fingerprintOf(x509.load_pem_x509_certificate(pem))
            for options in ({}, {"minimum": ssl.TLSVersion.TLSv1_2}):
                port = self.record(pem, **options)
                for host in ("localhost", "127.0.0.1"):
                    self.assertEqual(await self.fetch(host, port), pin)
                await self.closed()
                self.assertEqual((self.factory.made, self.factory.received), (2, b""))

    async def test_vouched(self) -> None:
        """Who is vouched for by the system's authorities, and who is not."""
        from twisted.internet import reactor

        pem = makeCertificate(("localhost",))
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(pem)
        port = self.record(pem)
        self.assertFalse(await isVouchedFor(reactor, "localhost", port))
        os.environ["SSL_CERT_FILE"] = os.path.abspath(path)
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.assertTrue(await isVouchedFor(reactor, "localhost", port))
        # The certificate is for the name only.
        self.assertFalse(await isVouchedFor(reactor, "127.0.0.1", port))
        await self.closed()
        self.assertEqual(self.factory.received, b"")

    async def test_lostVerification(self) -> None:
        """A library in which the refusals of callbacks are lost makes no server a trusted one."""
        from twisted.internet import reactor

        # What has happened: the callback ran into an error of its own, and nobody saw a refusal.
        for kind in (SSL.Context, SSL.Connection):
            accepts = kind.set_verify

            def acceptAll(
                self: Any, mode: Any, callback: Any = None, accepts: Any = accepts
            ) -> None:
                accepts(self, mode, lambda *shown: True)

            self.patch(kind, "set_verify", acceptAll)
        pem = makeCertificate(("localhost",))
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(pem)
        port = self.record(pem)
        # Nobody vouches for it; or somebody does, for another name; or another key is pinned.
        self.assertFalse(await isVouchedFor(reactor, "localhost", port))
        other = fingerprintOf(x509.load_pem_x509_certificate(makeCertificate()))
        for host, trust in (("localhost", None), ("127.0.0.1", path), ("localhost", other)):
            with self.assertRaises(ServerNotTrusted):
                await getObjectAt(f"tls:{host}:{port}", None, trust=trust)
        os.environ["SSL_CERT_FILE"] = os.path.abspath(path)
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.assertTrue(await isVouchedFor(reactor, "localhost", port))
        self.assertFalse(await isVouchedFor(reactor, "127.0.0.1", port))

    async def test_noTLS(self) -> None:
        """What speaks no TLS is not trusted."""
        from twisted.internet import reactor

        class Chatty(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        port = self.record()
        self.factory.protocol = Chatty
        with self.assertRaises(ServerNotTrusted) as raised:
            await self.fetch("127.0.0.1", port)
        self.assertIn("could not be protected", str(raised.exception))
        self.assertFalse(await isVouchedFor(reactor, "127.0.0.1", port))
        await self.closed()

    async def test_hungUp(self) -> None:
        """A server that hangs up during the handshake."""

        class Rude(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()

        port = self.record()
        self.factory.protocol = Rude
        with self.assertRaises(ConnectionClosed):
            await self.fetch("127.0.0.1", port)
        await self.closed()

    async def test_silence(self) -> None:
        """A server that says nothing is left after the timeout."""
        port = self.record()
        with self.assertRaises(LoginTimeout):
            await self.fetch("127.0.0.1", port, timeout=0.2)
        await self.closed()
        self.assertEqual(self.factory.made, 1)

    async def test_slowNames(self) -> None:
        """Nor does one wait longer for the name of a server."""
        from twisted.internet import reactor

        any_: Any = reactor
        self.addCleanup(any_.installNameResolver, any_.installNameResolver(Silent()))
        with self.assertRaises(LoginTimeout):
            await self.fetch("server.example", 1, timeout=0.01)

    async def test_cancelled(self) -> None:
        """Who changes one's mind leaves nothing open."""
        port = self.record()
        fetching = self.fetch("127.0.0.1", port)
        while not self.factory.made:
            await self.turn()
        fetching.cancel()
        with self.assertRaises(CancelledError):
            await fetching
        await self.closed()

    async def test_nobody(self) -> None:
        """Where nobody listens, that is said."""
        from twisted.internet import reactor

        port = reactor.listenTCP(0, protocol.ServerFactory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()  # type: ignore[misc]
        with self.assertRaises(ConnectionRefusedError):
            await self.fetch("127.0.0.1", number)
        with self.assertRaises(ConnectionRefusedError):
            await isVouchedFor(reactor, "127.0.0.1", number)


class BindingTests(TLSTestCase):
    """A login is bound to its TLS connection."""

    async def test_stockServer(self) -> None:
        """Under stock Twisted's server factory as well."""
        port = self.serve(stock=True)
        self.assertEqual(await self.works(await self.attempt(port, trust=self.pin)), PLUS)

    async def test_offer(self) -> None:
        """The bound form is offered first, on TLS."""
        port = self.serve()
        root = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        self.assertEqual(await root.callRemote("mechanisms"), [PLUS, SCRAM, "ED25519", "VOUCHER"])
        await self.hangUp(root)

    async def test_notOffered(self) -> None:
        """A policy that names plain SCRAM offers the bound form, too."""
        port = self.serve(policy=Policy(mechanisms=[SCRAM]))
        self.assertEqual(await self.works(await self.attempt(port, trust=self.pin)), PLUS)

    async def test_oldClient(self) -> None:
        """TLS 1.2, which can't be bound to, is refused by the client, however it connects."""
        from twisted.internet import reactor

        port = self.serve(Policy(minimumTLS="1.2"), minimum=ssl.TLSVersion.TLSv1_2)
        options = ssl.CertificateOptions(raiseMinimumTo=ssl.TLSVersion.TLSv1_2)
        endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", port, options)
        attempts: list[Any] = [
            lambda: self.attempt(port, trust=self.pin),
            lambda: connect(endpoint, None, "alice", "secret", "game"),
            lambda: getObjectAt(endpoint, None),
        ]
        for attempt in attempts:
            with self.assertRaises(ServerNotTrusted) as raised:
                await attempt()
            self.assertIn("minimumTLS=1.2", str(raised.exception))
        self.assertEqual(self.game.events, [])

    async def test_askedForByName(self) -> None:
        """Where both ends ask for it by name, TLS 1.2 works; it is logged what is lost."""
        port = self.serve(Policy(minimumTLS="1.2"), minimum=ssl.TLSVersion.TLSv1_2)
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        perspective = await self.attempt(port, trust=self.pin, more=":minimumTLS=1.2")
        self.assertEqual(await self.works(perspective), SCRAM)
        (warning,) = [each for each in logged if each["log_level"] is LogLevel.warn]
        self.assertIn("relay this login", warning["log_format"])
        with self.assertRaises(ValueError):
            await self.attempt(port, trust=self.pin, more=":minimumTLS=1.1")

    async def test_oldServer(self) -> None:
        """A server behind an endpoint that takes TLS 1.2 offers nothing there, unless asked to."""
        port = self.serve(minimum=ssl.TLSVersion.TLSv1_2)
        with self.assertRaises(MechanismNotSupported) as raised:
            await self.attempt(port, trust=self.pin, more=":minimumTLS=1.2")
        self.assertEqual(raised.exception.offered, [])
        self.assertEqual(self.game.events, [])

    async def test_wrongPassword(self) -> None:
        """A wrong password is refused as ever."""
        port = self.serve()
        with self.assertRaises(Unauthorized):
            await self.attempt(port, "wrong", trust=self.pin)

    async def test_changePassword(self) -> None:
        """On a bound connection the password can be changed."""
        from pbauth import authIdentity
        from pbauth.mechanisms.scram import ScramVerifier

        port = self.serve()
        root = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        identity = await authIdentity(root, "alice", Password("secret"))
        verifier = ScramVerifier.fromPassword("changed", b"0123456789abcdef", 4096)
        await identity.callRemote("changePassword", verifier.encode())
        await self.hangUp(root)
        self.assertEqual(
            await self.works(await self.attempt(port, "changed", trust=self.pin)), PLUS
        )


class RelayTests(TLSTestCase):
    """A man in the middle who holds a certificate that the client accepts."""

    async def relay(
        self, offered: list[str] | None = None, newest: Any = None
    ) -> tuple[Relay, int]:
        """Put a relay in front of a server; the client trusts the relay's certificate."""
        port = self.serve()
        root = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        self.addCleanup(self.hangUp, root)
        relay = Relay(root, offered)
        pem = makeCertificate()
        self.pin = fingerprintOf(x509.load_pem_x509_certificate(pem))
        return relay, self.listen(pb.PBServerFactory(relay), pem, newest)

    async def refused(self, error: type[Exception], offered: list[str] | None) -> None:
        """The login through this relay fails by this error, and wins the relay nothing."""
        relay, port = await self.relay(offered)
        with self.assertRaises(error):
            await self.attempt(port, trust=self.pin)
        self.assertFalse(relay.won)
        self.assertEqual(self.game.events, [])

    async def test_passedOn(self) -> None:
        """The bound form does not pass through: the channels are not the same."""
        await self.refused(Unauthorized, None)

    async def test_strippedOffer(self) -> None:
        """Taking the bound form from the offer is noticed by the server."""
        await self.refused(Unauthorized, [SCRAM])

    async def test_plainBehind(self) -> None:
        """
        Where the relay reaches the server without TLS, the server can't notice it. The client knows
        that its login was not bound, and sends no verifier of a new password.
        """
        from twisted.internet import reactor

        self.serve()
        plain = reactor.listenTCP(0, AuthServerFactory(self.authorizer), interface="127.0.0.1")
        self.addCleanup(plain.stopListening)
        root = await getObjectAt("127.0.0.1", plain.getHost().port)
        self.addCleanup(self.hangUp, root)
        relay = Relay(root, [SCRAM])
        pem = makeCertificate()
        port = self.listen(pb.PBServerFactory(relay), pem)
        credentials = Password("secret", renew=False)
        reference = await self.attempt(port, credentials, trust=pinOf(pem))
        self.assertTrue(relay.won)
        administration = RemoteAdministration(reference, "alice", reactor)
        for sending in (
            lambda: changePassword(reference.identity, "changed"),
            lambda: Deferred.fromCoroutine(administration.addUser("bob", "a password")),
            lambda: Deferred.fromCoroutine(administration.setPassword("alice", "a password")),
            lambda: Deferred.fromCoroutine(administration.addRecords([Record("bob")])),
        ):
            with self.assertRaises(NotProtected):
                await sending()
        await self.hangUp(reference)

    async def test_weakOffer(self) -> None:
        """A client does not go below what it was allowed to use."""
        for offered in (["PLAIN"], ["PB-MD5"], ["PLAIN", "PB-MD5", "ANONYMOUS"], []):
            await self.refused(MechanismNotSupported, offered)

    async def test_rigWorks(self) -> None:
        """Where the user asks for TLS 1.2, the relay does get through: these tests can fail."""
        relay, port = await self.relay([SCRAM], ssl.TLSVersion.TLSv1_2)
        with self.assertRaises(ServerNotTrusted):
            await self.attempt(port, trust=self.pin)
        self.assertFalse(relay.won)
        reference = await self.attempt(
            port, Password("secret", renew=False), trust=self.pin, more=":minimumTLS=1.2"
        )
        self.assertTrue(relay.won)
        await self.hangUp(reference)
