"""A client says why it does not trust a server's certificate."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import ssl

from pbauth import AuthServerFactory, ServerNotTrusted
from pbauth.net.trust import serverOptions
from tests.support.tls import TLSTestCase

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


class Authority:
    """
    A certificate authority, or a server's key and certificate.

    Args:
        name: of it.
        signer: who signs it; `None`: itself.
        server: it is a server's.
        begins: when it becomes valid.
        ends: when it expires.
        host: the name that it is for.
    """

    def __init__(
        self,
        name: str,
        signer: Authority | None = None,
        *,
        server: bool = False,
        begins: datetime.datetime = NOW - DAY,
        ends: datetime.datetime = NOW + 30 * DAY,
        host: str = "localhost",
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        by = self if signer is None else signer
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(by.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(not server, None), critical=True)
        )
        if server:
            names = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(names, critical=False)
        self.certificate = builder.sign(by.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def withKey(self) -> bytes:
        """The key, and the certificate."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return key + self.pem


class RefusalTests(TLSTestCase):
    """With an authority that the client trusts."""

    def setUp(self) -> None:
        self.serve()
        self.authority = Authority("authority")
        self.between = Authority("between", self.authority)
        self.trust = self.mktemp()
        Path(self.trust).write_bytes(self.authority.pem)

    async def refusal(self, server: Authority, *chain: Authority) -> str:
        """What the client says of a server with this certificate, and these others."""
        from twisted.internet import reactor

        any_: Any = reactor
        options = serverOptions(
            ssl.PrivateCertificate.loadPEM(server.withKey),
            chain=[ssl.Certificate.loadPEM(each.pem) for each in chain],
        )
        factory = AuthServerFactory(self.authorizer)
        port = any_.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with self.assertRaises(ServerNotTrusted) as raised:
            await self.attempt(port.getHost().port, trust=self.trust)
        return str(raised.exception)

    async def test_expired(self) -> None:
        """It has expired, with the day; that of an authority is told apart."""
        ended = NOW - DAY / 2
        server = Authority("localhost", self.authority, server=True, ends=ended)
        said = await self.refusal(server)
        self.assertIn(f"The server's certificate has expired on {ended:%Y-%m-%d}", said)
        between = Authority("between", self.authority, ends=ended)
        server = Authority("localhost", between, server=True)
        said = await self.refusal(server, between)
        self.assertIn("A certificate in the server's chain has expired on", said)

    async def test_notYetValid(self) -> None:
        """It is not valid yet, which may be the clock's fault."""
        server = Authority("localhost", self.authority, server=True, begins=NOW + DAY)
        said = await self.refusal(server)
        self.assertIn("is not valid before", said)
        self.assertIn("Check the clock", said)

    async def test_otherName(self) -> None:
        """It is for somebody else."""
        server = Authority("x", self.authority, server=True, host="example.com")
        self.assertIn("for another name", await self.refusal(server))

    async def test_unknownAuthority(self) -> None:
        """Somebody whom nobody knows has signed it, or the server itself."""
        stranger = Authority("stranger")
        server = Authority("localhost", stranger, server=True)
        self.assertIn("not one that you trust. To trust it", await self.refusal(server, stranger))
        alone = Authority("localhost", server=True)
        self.assertIn("not one that you trust. To trust it", await self.refusal(alone))

    async def test_incomplete(self) -> None:
        """The chain lacks what leads to the authority; with it, all is well."""
        server = Authority("localhost", self.between, server=True)
        self.assertIn("does not send the whole chain", await self.refusal(server))
