"""TLS: which servers a client trusts, and what a man in the middle gets."""

from __future__ import annotations

import os
from typing import Any

from cryptography import x509
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbauth import (
    AuthRoot,
    AuthServerFactory,
    DefaultAuthorizer,
    Hashing,
    MechanismNotSupported,
    Policy,
    ServerNotTrusted,
    Unauthorized,
    connect,
    getObjectAt,
)
from pbauth.mechanisms.fingerprints import checkPin, fingerprintOf
from pbauth.testing import MemoryServer, RecordingService
from pbauth.trust import makeCertificate

PLUS = "SCRAM-SHA-256-PLUS"
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


class TLSTestCase(TestCase):
    """Servers on loopback, by TLS."""

    def listen(self, factory: Any, pem: bytes, minimum: Any = None) -> int:
        """Listen by TLS on a free port."""
        from twisted.internet import reactor

        certificate = ssl.PrivateCertificate.loadPEM(pem)
        options = certificate.options()
        if minimum is not None:
            options = ssl.CertificateOptions(
                privateKey=certificate.privateKey.original,
                certificate=certificate.original,
                lowerMaximumSecurityTo=minimum,
            )
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def serve(self, policy: Policy | None = None, stock: bool = False, **options: Any) -> int:
        """Run a server with alice."""
        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing.CHEAPEST))
        self.authorizer = memory.authorizer
        self.authorizer.setServiceCollection(memory.services)
        self.game = RecordingService("game", memory.services, self.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        self.pem = makeCertificate()
        self.pin = fingerprintOf(x509.load_pem_x509_certificate(self.pem))
        factory = (
            pb.PBServerFactory(AuthRoot(self.authorizer, policy))
            if stock
            else AuthServerFactory(self.authorizer, policy)
        )
        return self.listen(factory, self.pem, **options)

    def attempt(self, port: int, password: str = "secret", **options: Any) -> Any:
        """Log alice in."""
        where = f"tls:{options.pop('host', 'localhost')}:{port}"
        return connect(where, None, "alice", password, "game", **options)

    async def works(self, perspective: Any) -> str:
        """Use a perspective, hang up, and give the mechanism of its login."""
        (session,) = self.authorizer.sessions
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        await self.hangUp(perspective)
        mechanism: str = session.mechanism
        return mechanism

    async def hangUp(self, reference: Any) -> None:
        """Close a connection."""
        reference.broker.transport.loseConnection()
        await reference.broker.whenClosed()
        while len(self.authorizer.sessions):
            await self.turn()

    async def turn(self) -> None:
        """Let the reactor run once."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await deferLater(reactor, 0, lambda: None)


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
        self.assertEqual(await root.callRemote("mechanisms"), [PLUS, SCRAM, "ED25519"])
        await self.hangUp(root)

    async def test_notOffered(self) -> None:
        """A policy without the bound form, or TLS 1.2, leave plain SCRAM, and that works."""
        for options in (
            {"policy": Policy(mechanisms=[SCRAM])},
            {"minimum": ssl.TLSVersion.TLSv1_2},
        ):
            port = self.serve(**options)
            self.assertEqual(await self.works(await self.attempt(port, trust=self.pin)), SCRAM)

    async def test_wrongPassword(self) -> None:
        """A wrong password is refused as ever."""
        port = self.serve()
        with self.assertRaises(Unauthorized):
            await self.attempt(port, "wrong", trust=self.pin)

    async def test_changePassword(self) -> None:
        """On a bound connection the password can be changed."""
        from pbauth import Password, authIdentity
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


class Relay(pb.Root):
    """
    A man in the middle, whose certificate the client accepts, and who passes everything on.

    Args:
        server: a reference to the real root.
        offered: what it says is offered; `None`: the truth.
    """

    def __init__(self, server: Any, offered: list[str] | None = None) -> None:
        self.server = server
        self.offered = offered
        self.won = False

    def remote_username(self, name: str, mechanism: str, initial: bytes) -> Any:
        if self.offered is not None and mechanism not in self.offered:
            raise MechanismNotSupported(self.offered)
        return self.passOn(self.server, "username", name, mechanism, initial)

    async def pass_(self, reference: Any, *call: Any) -> Any:
        first, second = await reference.callRemote(*call)
        return first, RelayedChallenger(self, second)

    def passOn(self, reference: Any, *call: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.pass_(reference, *call))


class RelayedChallenger(pb.Referenceable):
    """Passes the response on; if that is accepted, the relay has a session of alice."""

    def __init__(self, relay: Relay, challenger: Any) -> None:
        self.relay = relay
        self.challenger = challenger

    def remote_respond(self, response: bytes, *attach: Any) -> Any:
        answer = self.challenger.callRemote("respond", response)

        def won(result: Any) -> Any:
            self.relay.won = True
            return result[0], self, self

        return answer.addCallback(won)


class RelayTests(TLSTestCase):
    """A man in the middle who holds a certificate that the client accepts."""

    async def relay(self, offered: list[str] | None = None, **options: Any) -> tuple[Relay, int]:
        """Put a relay in front of a server; the client trusts the relay's certificate."""
        port = self.serve(**options)
        root = await getObjectAt(f"tls:localhost:{port}", None, trust=self.pin)
        self.addCleanup(self.hangUp, root)
        relay = Relay(root, offered)
        pem = makeCertificate()
        self.pin = fingerprintOf(x509.load_pem_x509_certificate(pem))
        return relay, self.listen(pb.PBServerFactory(relay), pem)

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

    async def test_weakOffer(self) -> None:
        """A client does not go below what it was allowed to use."""
        for offered in (["PLAIN"], ["PB-MD5"], ["PLAIN", "PB-MD5", "ANONYMOUS"], []):
            await self.refused(MechanismNotSupported, offered)

    async def test_rigWorks(self) -> None:
        """Without binding the same relay does get through: the tests above can fail."""
        relay, port = await self.relay([SCRAM], policy=Policy(mechanisms=[SCRAM]))
        reference = await self.attempt(port, trust=self.pin)
        self.assertTrue(relay.won)
        await self.hangUp(reference)
