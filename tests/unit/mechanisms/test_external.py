"""EXTERNAL: logins with TLS client certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import ssl
from twisted.internet.defer import maybeDeferred
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from pbauth import (
    AuthServerFactory,
    CertificateKey,
    ClientCertificate,
    DefaultAuthorizer,
    Hashing,
    ICredentials,
    IMechanism,
    MechanismNotSupported,
    Policy,
    SQLAuthorizer,
    Unauthorized,
    connect,
    getObjectAt,
)
from pbauth.errors import ExchangeRefused, PassphraseNeeded
from pbauth.interfaces import IClientExchange, IExchange
from pbauth.mechanisms import decodeVerifier
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.external import NAME, ExternalMechanism, ExternalServer
from pbauth.mechanisms.terms import Terms
from pbauth.net.certificates import makeCertificate
from pbauth.net.trust import serverOptions
from pbauth.testing import MemoryServer, RecordingService
from tests.support.tls import PIN, Relay, TLSTestCase, pinOf

OTHER = "SHA256:" + "B" * 42 + "A="
AUTHORIZED = AuthorizedKeys(NAME, (CertificateKey(PIN, "laptop"),))


class ExchangeTests(SynchronousTestCase):
    """The exchange, without a connection."""

    def test_login(self) -> None:
        """The certificate of an identity proves it."""
        exchange = ExternalServer(AUTHORIZED, PIN)
        verifyObject(IExchange, exchange)
        self.assertEqual(exchange.challenge(b""), b"")
        self.assertEqual(exchange.outcome(b""), b"")
        self.assertEqual(exchange.proof, CertificateKey(PIN))

    def test_refused(self) -> None:
        """Another certificate, or none, does not."""
        for authorized, pin in [
            (AUTHORIZED, OTHER),
            (AUTHORIZED, None),
            (AuthorizedKeys(NAME), PIN),
        ]:
            exchange = ExternalServer(authorized, pin)
            exchange.challenge(b"")
            with self.assertRaises(ExchangeRefused):
                exchange.outcome(b"")

    @given(st.binary() | st.text() | st.none() | st.integers(), st.binary() | st.text())
    def test_anything(self, initial: Any, response: Any) -> None:
        """Whatever is sent: nothing but an empty message passes, and nothing else is raised."""
        exchange = ExternalServer(AUTHORIZED, PIN)
        try:
            exchange.challenge(initial)
            exchange.outcome(response)
        except ExchangeRefused:
            self.assertFalse(initial == response == b"")
        else:
            self.assertEqual((initial, response), (b"", b""))

    def test_offered(self) -> None:
        """It is offered where the client showed a certificate."""
        mechanism = ExternalMechanism()
        verifyObject(IMechanism, mechanism)
        self.assertTrue(mechanism.offeredOn(Channel(secure=True, peerPin=PIN), Terms()))
        self.assertFalse(mechanism.offeredOn(Channel(secure=True), Terms()))


class KeyTests(SynchronousTestCase):
    """How keys are written down."""

    def test_lines(self) -> None:
        """Fingerprint and label, in one spelling; the label does not count."""
        key = CertificateKey.fromLine(f" {PIN.rstrip('=')}  my laptop\n")
        self.assertEqual(key.line(), f"{PIN} my laptop")
        self.assertEqual((key.label, key.fingerprint(), key.mechanism), ("my laptop", PIN, NAME))
        self.assertEqual(key, CertificateKey(PIN))
        for bad in ("", "laptop", "SHA256:short laptop", f"{PIN} a\x00b"):
            with self.assertRaises(ValueError):
                CertificateKey.fromLine(bad)

    def test_verifier(self) -> None:
        """They are stored as text."""
        keys = AuthorizedKeys(NAME, (CertificateKey(PIN, "laptop"), CertificateKey(OTHER)))
        self.assertEqual(decodeVerifier(keys.encode()), keys)
        self.assertNotEqual(keys, AuthorizedKeys("ED25519", keys.keys))


class ClientCertificateTests(SynchronousTestCase):
    """What a client logs in with."""

    def write(self, data: bytes) -> str:
        """Make a file."""
        path = self.mktemp()
        Path(path).write_bytes(data)
        Path(path).chmod(0o600)
        return path

    def test_file(self) -> None:
        """A PEM file with key and certificate; encrypted ones need their passphrase."""
        pem = makeCertificate()
        certificate = ClientCertificate.fromFile(self.write(pem))
        verifyObject(ICredentials, certificate)
        self.assertEqual(certificate.publicKey.pin, pinOf(pem))
        self.assertEqual(repr(certificate), f"<ClientCertificate {pinOf(pem)}>")
        exchange = certificate.begin(NAME, "alice", Channel(secure=True))
        verifyObject(IClientExchange, exchange)
        self.assertEqual((exchange.initial, exchange.respond(b"")), (b"", b""))
        with self.assertRaises(MechanismNotSupported):
            certificate.begin("PLAIN", "alice", Channel(secure=True))
        encrypted = load_pem_private_key(pem, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")
        )
        path = self.write(encrypted + pem[pem.index(b"-----BEGIN CERTIFICATE") :])
        opened = ClientCertificate.fromFile(path, "open sesame")
        self.assertEqual(opened.publicKey, certificate.publicKey)
        with self.assertRaises(PassphraseNeeded):
            ClientCertificate.fromFile(path)
        with self.assertRaises(ValueError) as raised:
            ClientCertificate.fromFile(path, "wrong")
        self.assertIn("passphrase is wrong", str(raised.exception))

    def test_exposedFiles(self) -> None:
        """A file that others can read is not used: there is a key in it."""
        path = self.write(makeCertificate())
        for mode in (0o644, 0o640, 0o606):
            Path(path).chmod(mode)
            with self.assertRaises(ValueError) as raised:
                ClientCertificate.fromFile(path)
            self.assertIn(f"Run: chmod 600 {path}", str(raised.exception))

    def test_otherFiles(self) -> None:
        """Files that lack something are said to."""
        pem, other = makeCertificate(), makeCertificate()
        cut = pem.index(b"-----BEGIN CERTIFICATE")
        otherCut = other.index(b"-----BEGIN CERTIFICATE")
        for data, text in [
            (pem[:cut], "no certificate"),
            (pem[cut:], "not a private key"),
            (pem[:cut] + other[otherCut:], "does not belong to the certificate"),
            (b"junk", "not a private key"),
        ]:
            with self.assertRaises(ValueError) as raised:
                ClientCertificate.fromFile(self.write(data))
            self.assertIn(text, str(raised.exception))
        with self.assertRaises(ValueError):
            ClientCertificate.fromFile(self.mktemp())


class LoginTests(TLSTestCase):
    """Over TLS."""

    def serveExternal(self, policy: Policy | None = None, authorizer: Any = None) -> int:
        """Run a server that asks clients for certificates."""
        from twisted.internet import reactor

        memory = MemoryServer(authorizer or DefaultAuthorizer(hashing=Hashing.CHEAPEST))
        self.authorizer = memory.authorizer
        self.authorizer.setServiceCollection(memory.services)
        self.game = RecordingService("game", memory.services, self.authorizer)
        self.pem = makeCertificate()
        self.pin = pinOf(self.pem)
        policy = policy or Policy(mechanisms=[NAME, "SCRAM-SHA-256-PLUS"])
        port = reactor.listenSSL(
            0,
            AuthServerFactory(self.authorizer, policy),
            serverOptions(ssl.PrivateCertificate.loadPEM(self.pem), askForCertificate=True),
            interface="127.0.0.1",
        )
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def certificate(self) -> ClientCertificate:
        """Make a client's certificate."""
        return ClientCertificate(ssl.PrivateCertificate.loadPEM(makeCertificate(("alice",))))

    async def addAlice(self, *certificates: ClientCertificate) -> Any:
        """Add alice, who logs in with certificates, and by a password."""
        alice = self.authorizer.createIdentity("alice")
        alice.setPassword("secret")
        alice.addKeyByString("game", "alice")
        for each in certificates:
            alice.addPublicKey(each.publicKey)
        await maybeDeferred(alice.save)
        return alice

    def logIn(self, port: int, credentials: Any, name: str = "alice") -> Any:
        """Log somebody in."""
        where = f"tls:127.0.0.1:{port}"
        return connect(where, None, name, credentials, "game", "alice", trust=self.pin)

    async def test_login(self) -> None:
        """A listed certificate logs in, another one is refused, and so is another name."""
        store = SQLAuthorizer(self.mktemp(), hashing=Hashing.CHEAPEST)
        self.addCleanup(store.close)
        port = self.serveExternal(authorizer=store)
        mine, other = self.certificate(), self.certificate()
        await self.addAlice(mine)
        self.assertEqual(await self.works(await self.logIn(port, mine)), NAME)
        for credentials, name in [(other, "alice"), (mine, "bob"), (mine, "nobody at all")]:
            with self.assertRaises(Unauthorized):
                await self.logIn(port, credentials, name)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_removed(self) -> None:
        """A session ends when its certificate is let in no more, and only then."""
        port = self.serveExternal()
        mine, spare = self.certificate(), self.certificate()
        alice = await self.addAlice(mine, spare)
        perspective = await self.logIn(port, mine)
        alice.removePublicKey(spare.publicKey)
        self.assertEqual(self.game.kinds(), ["attached"])
        alice.removePublicKey(mine.publicKey)
        self.assertEqual(self.game.kinds(), ["attached", "detached"])
        with self.assertRaises(KeyError):
            alice.removePublicKey(mine.publicKey)
        await self.hangUp(perspective)

    async def test_relayHasNoCertificate(self) -> None:
        """Who stands in the middle can't show the client's certificate to the server."""
        port = self.serveExternal()
        mine = self.certificate()
        await self.addAlice(mine)
        root = await getObjectAt(f"tls:127.0.0.1:{port}", None, trust=self.pin)
        relay = Relay(root)
        pem = makeCertificate()
        self.pin = pinOf(pem)
        middle = self.listen(pb.PBServerFactory(relay), pem)
        with self.assertRaises(MechanismNotSupported):
            await self.logIn(middle, mine)
        self.assertFalse(relay.won)
        self.assertEqual(self.game.events, [])
        await self.hangUp(root)

    async def test_withoutCertificate(self) -> None:
        """A client without one logs in with its password, and is not offered EXTERNAL."""
        port = self.serveExternal()
        await self.addAlice()
        self.assertEqual(await self.works(await self.logIn(port, "secret")), "SCRAM-SHA-256-PLUS")
        root = await getObjectAt(f"tls:127.0.0.1:{port}", None, trust=self.pin)
        self.assertEqual(await root.callRemote("mechanisms"), ["SCRAM-SHA-256-PLUS"])
        with self.assertRaises(MechanismNotSupported):
            await root.callRemote("username", "alice", NAME, b"")
        await self.hangUp(root)

    async def test_notByDefault(self) -> None:
        """The default policy does not take it."""
        port = self.serveExternal(Policy())
        mine = self.certificate()
        await self.addAlice(mine)
        with self.assertRaises(MechanismNotSupported):
            await self.logIn(port, mine)


class TargetTests(TestCase):
    """Where a certificate can be shown."""

    async def test_plainEndpoint(self) -> None:
        """An endpoint without TLS is refused before anything is opened."""
        certificate = ClientCertificate(ssl.PrivateCertificate.loadPEM(makeCertificate()))
        for where, port in [("127.0.0.1", 1), ("tcp:127.0.0.1:1", None), ("unix:/nowhere", None)]:
            with self.assertRaises(ValueError) as raised:
                await connect(where, port, "alice", certificate, "game")
            self.assertIn("tls:HOST:PORT", str(raised.exception))
