"""The certificate of a port: renewed by others, and read again without a restart."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pbauth._files import writePrivate
from pbauth.net.certificates import makeCertificate
from pbauth.net.listening import Ports
from pbauth.net.servercertificate import ServerCertificate
from pbauth.server.state import certificatePath, openCertificate
from tests.support.tls import pinOf


def shownBy(certificate: ServerCertificate) -> str:
    """Connect in memory, and give the fingerprint of the key that is shown."""
    server = certificate.serverConnectionForTLS(None)
    server.set_accept_state()
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                other.bio_write(one.bio_read(65_536))
            except SSL.WantReadError:
                pass
    shown: Any = client.get_peer_certificate()
    return pinOf(ssl.Certificate(shown).dumpPEM())


class OwnTests(SynchronousTestCase):
    """The server's own certificate, in its state folder."""

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        self.path = certificatePath(self.state)
        ports = Ports(None, lambda: openCertificate(self.state), ownPath=self.path)
        certificate = ports.read("ssl:0").certificate
        assert certificate is not None
        self.certificate = certificate
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def test_made(self) -> None:
        """It is not new because it has just been made."""
        self.assertEqual(shownBy(self.certificate), pinOf(Path(self.path).read_bytes()))
        self.assertEqual(self.logged, [])

    def test_putBack(self) -> None:
        """One that is put back from a backup is shown, and the log says so."""
        restored = makeCertificate()
        writePrivate(self.path, restored)
        self.assertEqual(shownBy(self.certificate), pinOf(restored))
        self.assertIn("has the new key", self.logged[0]["log_format"] + self.logged[0]["key"])

    def test_notUsable(self) -> None:
        """What is damaged, exposed or gone changes nothing; above all, no other key is made."""
        before = self.certificate.fingerprint

        def damage() -> None:
            writePrivate(self.path, b"nonsense")

        def expose() -> None:
            writePrivate(self.path, makeCertificate())
            os.chmod(self.path, 0o644)

        for spoil in (damage, expose, lambda: os.unlink(self.path)):
            spoil()
            self.logged.clear()
            self.assertEqual(shownBy(self.certificate), before)
            self.assertEqual([each["log_level"] for each in self.logged], [LogLevel.error])
        self.assertFalse(os.path.exists(self.path))


class RefreshTests(SynchronousTestCase):
    """A pair of files in a folder."""

    def setUp(self) -> None:
        """Make a pair, and a port that shows it."""
        self.key, self.path = self.mktemp(), self.mktemp()
        self.first = makeCertificate()
        self.write(self.first)
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        port = Ports(None, self.fail).read(f"ssl:0:privateKey={self.key}:certKey={self.path}")
        assert port.certificate is not None
        self.certificate = port.certificate

    def write(self, pem: bytes) -> None:
        """Replace both files."""
        self.writeKey(pem)
        self.writeCertificate(pem)

    def writeKey(self, pem: bytes) -> None:
        """Replace the file of the key."""
        self.replace(self.key, pem[: pem.index(b"-----BEGIN CERTIFICATE")])

    def writeCertificate(self, pem: bytes) -> None:
        """Replace the file of the certificate."""
        self.replace(self.path, pem[pem.index(b"-----BEGIN CERTIFICATE") :])

    def replace(self, path: str, data: bytes) -> None:
        """Replace a file, as programs that renew certificates do."""
        Path(path + ".new").write_bytes(data)
        os.replace(path + ".new", path)

    def said(self, level: Any) -> list[str]:
        """What was logged at a level."""
        return [event["log_format"] for event in self.logged if event["log_level"] is level]

    def test_interface(self) -> None:
        """It makes connections for Twisted's TLS."""
        verifyObject(IOpenSSLServerConnectionCreator, self.certificate)

    def test_renewed(self) -> None:
        """New files are shown to the next client, with no restart; and it is logged once."""
        self.assertEqual(shownBy(self.certificate), pinOf(self.first))
        second = makeCertificate(days=3)
        self.write(second)
        for _ in range(2):
            self.assertEqual(shownBy(self.certificate), pinOf(second))
        self.assertEqual(self.certificate.fingerprint, pinOf(second))
        (line,) = self.said(LogLevel.info)
        self.assertIn("read again", line)
        self.assertEqual(self.said(LogLevel.error), [])

    def test_expires(self) -> None:
        """When it expires follows the files."""
        before = self.certificate.expires
        self.write(makeCertificate(days=3))
        self.certificate.refresh()
        self.assertLess(self.certificate.expires, before)

    def test_halfRenewed(self) -> None:
        """While only one of the two is new, the old pair stays."""
        second = makeCertificate()
        self.writeCertificate(second)
        self.assertEqual(shownBy(self.certificate), pinOf(self.first))
        self.assertEqual(len(self.said(LogLevel.error)), 1)
        self.writeKey(second)
        self.assertEqual(shownBy(self.certificate), pinOf(second))

    def makeFolderOfKey(self) -> None:
        """Put a folder in the place of the key."""
        os.unlink(self.key)
        os.mkdir(self.key)

    def test_unusable(self) -> None:
        """Junk, an empty file and a file that is gone: each is logged once, and changes nothing."""
        spoils: list[Any] = [
            lambda: self.replace(self.path, b"junk"),
            lambda: self.replace(self.key, b""),
            lambda: os.unlink(self.path),
            self.makeFolderOfKey,
        ]
        for count, spoil in enumerate(spoils, 1):
            spoil()
            for _ in range(3):
                self.assertEqual(shownBy(self.certificate), pinOf(self.first))
            self.assertEqual(len(self.said(LogLevel.error)), count)

    def test_weak(self) -> None:
        """A key that OpenSSL thinks too short is refused at the start, and with a renewal."""
        key = rsa.generate_private_key(65_537, 1024)  # noqa: S505 - that is the point
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
        now = datetime.now(timezone.utc)
        weak = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.write(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + weak.public_bytes(Encoding.PEM)
        )
        self.assertEqual(shownBy(self.certificate), pinOf(self.first))
        self.assertEqual(len(self.said(LogLevel.error)), 1)
        with self.assertRaises(ValueError) as raised:
            Ports(None, self.fail).read(f"ssl:0:privateKey={self.key}:certKey={self.path}")
        self.assertIn("too small", str(raised.exception))

    def test_ownCertificate(self) -> None:
        """The server's own certificate has no files to watch here."""
        own = ssl.PrivateCertificate.loadPEM(self.first)
        port = Ports(None, lambda: own).read("ssl:0")
        assert port.certificate is not None
        self.assertEqual(shownBy(port.certificate), pinOf(self.first))
