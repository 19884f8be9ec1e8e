"""Where a server listens, and what it refuses to."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import ssl
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, TCP4ClientEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pbauth import (
    AuthServerFactory,
    DefaultAuthorizer,
    Hashing,
    MechanismNotSupported,
    PlainPassword,
    StoreError,
    connect,
    getObjectAt,
)
from pbauth.net.certificates import makeCertificate
from pbauth.net.listening import NotProtected, Port, Ports
from pbauth.server.state import openCertificate
from pbauth.testing import MemoryServer, RecordingService
from tests.support.tls import pinOf

OWN = makeCertificate()


def certificateChain(name: str) -> list[tuple[bytes, bytes]]:
    """An authority, one between, and a server's: keys and certificates, in PEM."""
    made: list[tuple[Any, x509.Certificate]] = []
    now = datetime.datetime.now(datetime.timezone.utc)
    for title in ("authority", "between", name):
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = made[-1] if made else None
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, title)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[1].subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(title)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=title != name, path_length=None), critical=True)
        )
        made.append((key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())))
    return [
        (
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            certificate.public_bytes(Encoding.PEM),
        )
        for key, certificate in made
    ]


def ports(reactor: Any = None, **options: Any) -> Ports:
    """Reads descriptions; the server's own certificate is `OWN`."""
    return Ports(reactor, lambda: ssl.PrivateCertificate.loadPEM(OWN), **options)


class DescriptionTests(SynchronousTestCase):
    """What a description may be."""

    def write(self, data: bytes) -> str:
        """Make a file."""
        path = self.mktemp()
        Path(path).write_bytes(data)
        return path

    def folder(self, *files: bytes) -> str:
        """Make a folder of files."""
        path = Path(self.mktemp())
        path.mkdir()
        for number, data in enumerate(files):
            (path / f"{number}.pem").write_bytes(data)
        return str(path)

    def test_tls(self) -> None:
        """The server's own certificate, or that of a file; by place and by name."""
        self.assertEqual(ports().read("ssl:8787").fingerprint, pinOf(OWN))
        other = makeCertificate()
        cut = other.index(b"-----BEGIN CERTIFICATE")
        both, key, certificate = map(self.write, (other, other[:cut], other[cut:]))
        for description in (
            f"ssl:8787:{both}",
            f"ssl:8787:privateKey={key}:certKey={certificate}:interface=127.0.0.1:backlog=9",
            f"ssl:port=8787:privateKey={both}:extraCertChain={certificate}",
        ):
            self.assertEqual(ports().read(description).fingerprint, pinOf(other), description)

    def test_exposedKeys(self) -> None:
        """
        A private key that others can replace is not used; a group may read it; that everybody can
        is for the log. So it is with those in a folder.
        """
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        key = self.write(OWN)
        folder = self.folder(OWN[OWN.index(b"-----BEGIN CERTIFICATE") :], OWN)
        inFolder = os.path.join(folder, "1.pem")
        for description, path in ((f"ssl:8787:{key}", key), (f"tls:{folder}:8787", inFolder)):
            for mode in (0o600, 0o400, 0o640, 0o440):
                os.chmod(path, mode)
                ports().read(description)
                self.assertEqual([each["path"] for each in events if "path" in each], [])
            for mode in (0o644, 0o604):
                os.chmod(path, mode)
                ports().read(description)
                self.assertEqual([each.pop("path") for each in events if "path" in each], [path])
            for mode in (0o660, 0o620, 0o602, 0o666):
                os.chmod(path, mode)
                with self.assertRaises(ValueError) as raised:
                    ports().read(description)
                self.assertIn(f"chmod 600 {path}", str(raised.exception))
            os.chmod(path, 0o600)
            os.chmod(os.path.dirname(path) or ".", 0o777)
            with self.assertRaises(ValueError) as raised:
                ports().read(description)
            self.assertIn("can replace", str(raised.exception))
            os.chmod(os.path.dirname(path) or ".", 0o755)

    def test_plain(self) -> None:
        """Plain TCP is for this machine, unless the user insists."""
        for description in (
            *("tcp:8787", "tcp:8787:interface=0.0.0.0", "tcp6:8787", "haproxy:tcp:8787"),
            r"tcp:8787:interface=\:\:",
        ):
            with self.assertRaises(NotProtected) as raised:
                ports().read(description)
            self.assertIn("--insecure", str(raised.exception))
            self.assertIsNone(ports(insecure=True).read(description).fingerprint)
        for description in (
            *("tcp:8787:interface=127.0.0.1", "tcp:8787:127.0.0.1", "unix:path"),
            r"tcp6:8787:interface=\:\:1",
            "haproxy:tcp:8787:interface=localhost",
        ):
            self.assertIsNone(ports().read(description).fingerprint)

    def test_mistakes(self) -> None:
        """Each gets one line."""
        junk = self.write(b"junk")
        own = self.write(OWN)
        other = self.write(makeCertificate())
        for description, said in [
            ("ssl:", "names no port"),
            ("ssl:eight", "names no port"),
            ("ssl:8787:backlog=many", "names no port"),
            ("ssl:8787:sslmethod=SSLv3_METHOD", "takes backlog, certKey"),
            ("ssl:8787:a:b:c", "takes backlog, certKey"),
            ("ssl:65536", "names no port"),
            ("ssl:٣", "names no port"),
            (f"ssl:8787:certKey={own}", "certKey= needs privateKey="),
            ("ssl:8787:minimumTLS=1.1", "minimumTLS is 1.3 (the default) or 1.2"),
            (f"ssl:8787:{junk}", "a private key in PEM, without a passphrase"),
            (f"ssl:8787:{junk}-not-there", "No such file"),
            (f"ssl:8787:privateKey={own}:certKey={other}", "does not belong to the certificate"),
            (f"ssl:8787:extraCertChain={junk}", "no certificate in PEM"),
            ("nonsense", "is not an endpoint"),
            ("haproxy:nonsense", "is not an endpoint"),
            ("tls:8787", "no *.pem in the folder '8787'"),
            ("tls::8787", "no *.pem in the folder ''"),
            (f"tls:{self.folder(b'junk', OWN[:300])}:8787", "what is no certificate"),
            (f"tls:{junk}:8787", "no *.pem in the folder"),
            (f"haproxy:tls:{junk}-not-there:8787", "For the server's own certificate"),
            ("systemd:domain=INET:index=90", "is not an endpoint"),
        ]:
            with self.assertRaises(ValueError, msg=description) as raised:
                ports().read(description)
            self.assertIn(said, str(raised.exception), description)
            self.assertNotIn("\n", str(raised.exception))

    def test_version6(self) -> None:
        """An address of IPv6, with and without the escapes that Twisted asks for."""
        for description in (
            "ssl:8787:interface=::1",
            r"ssl:8787:interface=\:\:1",
            "ssl:8787:interface=[::1]",
            "tcp6:8787:interface=::1",
        ):
            endpoint = ports().read(description).endpoint
            inner = getattr(endpoint, "endpoint", endpoint)
            self.assertIsInstance(inner, TCP6ServerEndpoint)
            self.assertEqual(inner._interface, "::1")

    def test_folder(self) -> None:
        """Twisted's own endpoint for a folder of certificates is known to speak TLS."""
        folder = self.mktemp()
        os.mkdir(folder)
        Path(folder, "localhost.pem").write_bytes(OWN)
        port = ports().read(f"tls:{folder}:8787")
        port.check(IPv6Address("TCP", "::", 8787))

    def test_check(self) -> None:
        """What an endpoint turns out to be is checked, too; systemd may hand over anything."""
        everywhere = IPv4Address("TCP", "0.0.0.0", 8787)  # noqa: S104
        plain = Port("systemd:domain=INET:index=0", None, None, False)
        for address in (everywhere, IPv6Address("TCP", "::", 8787)):
            with self.assertRaises(NotProtected):
                plain.check(address)
            Port("systemd", None, None, True).check(address)
            Port("ssl:8787", None, "SHA256:", False).check(address)
        for address in (IPv4Address("TCP", "127.0.0.1", 8787), UNIXAddress("path")):
            plain.check(address)


class CertificateTests(SynchronousTestCase):
    """The certificate of the state folder."""

    def test_madeOnce(self) -> None:
        """It is made once, for its owner only, of the kind that is fast: ECDSA P-256."""
        folder = self.mktemp()
        first, second = openCertificate(folder), openCertificate(folder)
        key = first.original.to_cryptography().public_key()
        self.assertEqual(key.curve.name, "secp256r1")
        self.assertEqual(first.dumpPEM(), second.dumpPEM())
        self.assertEqual(os.listdir(folder), ["server.pem"])
        mode = os.stat(os.path.join(folder, "server.pem")).st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)

    def test_mistakes(self) -> None:
        """One that others can read, or that is damaged, is not used."""
        folder = self.mktemp()
        openCertificate(folder)
        path = Path(folder, "server.pem")
        path.chmod(0o644)
        with self.assertRaises(StoreError) as raised:
            openCertificate(folder)
        self.assertIn(f"chmod 600 {path}", str(raised.exception))
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:300])
        with self.assertRaises(StoreError) as raised:
            openCertificate(folder)
        self.assertIn("damaged", str(raised.exception))


class _HeaderFirst(ProxyClient):
    """The load balancer's connection to the server: it says first whose connection it is."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8787\r\n")
        super().connectionMade()


class _HeaderFirstFactory(ProxyClientFactory):
    protocol = _HeaderFirst


class _LoadBalancer(ProxyServer):
    """The load balancer's connection from the client."""

    clientProtocolFactory = _HeaderFirstFactory


class ListeningTests(TestCase):
    """Real ports."""

    async def serve(self, description: str, **options: Any) -> Any:
        """Listen for logins of alice."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        memory = MemoryServer(DefaultAuthorizer(hashing=Hashing.CHEAPEST))
        self.authorizer = memory.authorizer
        self.authorizer.setServiceCollection(memory.services)
        RecordingService("game", memory.services, self.authorizer)
        memory.addUser("alice", "secret", ("game", "alice"))
        port = ports(reactor, **options).read(description)
        listening = await port.endpoint.listen(AuthServerFactory(self.authorizer))
        self.addCleanup(listening.stopListening)
        return listening.getHost()

    async def balance(self, server: Any) -> int:
        """Put a load balancer in front of a server, and give its port."""
        factory = ProxyFactory(server.host, server.port)
        factory.protocol = _LoadBalancer
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def use(self, *where: Any, **options: Any) -> tuple[str, str]:
        """Log alice in; give mechanism and address of the session, and hang up."""
        perspective = await connect(*where, "alice", "secret", "game", **options)  # type: ignore[call-arg]
        self.assertEqual(await perspective.callRemote("whoami"), "alice")
        (session,) = self.authorizer.sessions
        found = session.mechanism, getattr(session.broker.transport.getPeer(), "host", "")
        perspective.broker.transport.loseConnection()
        await perspective.broker.whenClosed()
        return found

    async def test_tls(self) -> None:
        """A port over TLS, known by its fingerprint."""
        server = await self.serve("ssl:0:interface=127.0.0.1")
        mechanism, _ = await self.use(f"tls:127.0.0.1:{server.port}", None, trust=pinOf(OWN))
        self.assertEqual(mechanism, "SCRAM-SHA-256-PLUS")

    async def handshake(self, server: Any, newest: Any) -> str | None:
        """Connect as a client whose newest TLS is that; give the version, or `None`."""
        options = ssl.CertificateOptions(lowerMaximumSecurityTo=newest)
        done: Any = Deferred()

        @implementer(IHandshakeListener)
        class Client(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                # So that a transport that fails has something to fail with.
                self.transport.write(b"")

            def handshakeCompleted(self) -> None:
                done.callback(self.transport.getHandle().get_protocol_version_name())
                self.transport.loseConnection()

            def connectionLost(self, reason: Any = None) -> None:
                if not done.called:
                    done.callback(None)

        endpoint = SSL4ClientEndpoint(self.reactor, server.host, server.port, options)
        await endpoint.connect(Factory.forProtocol(Client))
        version: str | None = await done
        return version

    async def test_versions(self) -> None:
        """TLS 1.3, and nothing older unless it is asked for, which is logged as a warning."""
        old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        for more, expected in [
            ("", None),
            (":minimumTLS=1.3", None),
            (":minimumTLS=1.2", "TLSv1.2"),
        ]:
            server = await self.serve(f"ssl:0:interface=127.0.0.1{more}")
            self.assertEqual(await self.handshake(server, old), expected, more)
            self.assertEqual(await self.handshake(server, new), "TLSv1.3", more)
            warned = [event for event in logged if event["log_level"] is LogLevel.warn]
            self.assertEqual(len(warned), int(expected is not None), more)

    async def test_fullChain(self) -> None:
        """All of fullchain.pem is sent: a client that knows only the authority trusts it."""
        authority, between, leaf = certificateChain("localhost")
        key, chain, root = self.mktemp(), self.mktemp(), self.mktemp()
        Path(key).write_bytes(leaf[0])
        Path(chain).write_bytes(leaf[1] + between[1])
        Path(root).write_bytes(authority[1])
        server = await self.serve(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}")
        mechanism, _ = await self.use(f"tls:localhost:{server.port}", None, trust=root)
        self.assertEqual(mechanism, "SCRAM-SHA-256-PLUS")

    async def test_proxyBeforeTLS(self) -> None:
        """The real client's address comes before the TLS handshake, as load balancers send it."""
        for description, options in [
            ("ssl:0:interface=127.0.0.1", {"proxyProtocol": True}),
            ("haproxy:ssl:0:interface=127.0.0.1", {}),
        ]:
            server = await self.serve(description, **options)
            balanced = await self.balance(server)
            found = await self.use(f"tls:127.0.0.1:{balanced}", None, trust=pinOf(OWN))
            self.assertEqual(found, ("SCRAM-SHA-256-PLUS", "203.0.113.7"))

    async def test_proxyOnPlainTCP(self) -> None:
        """Without TLS as well; the client is not taken for one of this machine."""
        server = await self.serve("haproxy:tcp:0:interface=127.0.0.1")
        found = await self.use("127.0.0.1", await self.balance(server))
        self.assertEqual(found, ("SCRAM-SHA-256", "203.0.113.7"))

    async def test_noHeader(self) -> None:
        """Who sends no header is turned away, and is not taken for the load balancer."""
        server = await self.serve("haproxy:tcp:0:interface=127.0.0.1")
        closed: Any = Deferred()

        class Rude(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                self.transport.write(b"GET / HTTP/1.1\r\n\r\n")

            def connectionLost(self, reason: Any = None) -> None:
                closed.callback(None)

        endpoint = TCP4ClientEndpoint(self.reactor, server.host, server.port)
        await endpoint.connect(Factory.forProtocol(Rude))
        await closed
        self.assertEqual(len(self.authorizer.sessions), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_unix(self) -> None:
        """A UNIX socket; what it offers is told there, too."""
        path = self.mktemp()[-30:].replace(os.sep, "_")
        await self.serve(f"unix:{path}")
        self.assertEqual((await self.use(f"unix:{path}", None))[0], "SCRAM-SHA-256")
        root = await getObjectAt(f"unix:{path}", None)
        self.assertEqual(
            await root.callRemote("mechanisms"), ["SCRAM-SHA-256", "ED25519", "VOUCHER"]
        )
        root.broker.transport.loseConnection()
        await root.broker.whenClosed()
        with self.assertRaises(MechanismNotSupported):
            await connect(f"unix:{path}", None, "alice", PlainPassword("secret"), "game")
