"""
Which servers a client trusts, and the certificate that a server shows.

A client trusts the certificate authorities of the system, or those in a file, or one certificate,
or one public key by its *fingerprint*: ``SHA256:`` and the base64 of the SHA-256 of the key in DER
(SubjectPublicKeyInfo), the form that RFC 7469 calls a pin.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import os
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pbauth.errors import LoginTimeout, ServerNotTrusted

PIN_PREFIX = "SHA256:"

_YEARS = 20


def fingerprintOf(certificate: x509.Certificate) -> str:
    """
    Args:
        certificate: of a server.

    Returns:
        The fingerprint of its public key: ``SHA256:`` and base64.
    """
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PIN_PREFIX + base64.b64encode(hashlib.sha256(key).digest()).decode("ascii")


def checkPin(pin: str) -> str:
    """
    Check a fingerprint that somebody typed.

    Returns:
        It, in the one spelling.

    Raises:
        ValueError: it is none.
    """
    digest = pin.removeprefix(PIN_PREFIX)
    try:
        raw = base64.b64decode(digest + "=" * (-len(digest) % 4), validate=True)
    except ValueError:
        raw = b""
    if not pin.startswith(PIN_PREFIX) or len(raw) != 32:
        raise ValueError(f"{pin!r} is not a fingerprint: SHA256: and 44 characters of base64.")
    return PIN_PREFIX + base64.b64encode(raw).decode("ascii")


@implementer(IOpenSSLClientConnectionCreator)
class PinnedKey:
    """
    Makes client connections that accept one public key, whoever signed it, and no other.

    Args:
        pin: its fingerprint.
        host: the name to ask the server for; addresses are not sent.

    Raises:
        ValueError: the pin is none.
    """

    def __init__(self, pin: str, host: str = "") -> None:
        self._pin = checkPin(pin)
        self._host = host
        self._context = _contextFor(self._verify)

    def _verify(self, connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
        if depth:
            return True
        return hmac.compare_digest(fingerprintOf(certificate.to_cryptography()), self._pin)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Make a connection (see `IOpenSSLClientConnectionCreator`)."""
        return _connectionTo(self._host, self._context)


@implementer(IOpenSSLClientConnectionCreator)
class _AnyKey:
    """
    Makes client connections that accept whatever the server shows: good for looking at it only.

    Args:
        host: the name to ask the server for; addresses are not sent.
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Make a connection (see `IOpenSSLClientConnectionCreator`)."""
        return _connectionTo(self._host, _contextFor(lambda *shown: True))


def _contextFor(verify: Any) -> Any:
    context = ssl.CertificateOptions(raiseMinimumTo=ssl.TLSVersion.TLSv1_2).getContext()
    context.set_verify(SSL.VERIFY_PEER, verify)
    return context


def _connectionTo(host: str, context: Any) -> Any:
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if host and not _isAddress(host):
        connection.set_tlsext_host_name(host.encode("idna"))
    return connection


def clientOptions(host: str, trust: str | os.PathLike[str] | ssl.Certificate | None) -> Any:
    """
    How to connect by TLS to a server that may be trusted.

    Args:
        host: the name or address that the server's certificate must be for; a pinned key needs
            no name.
        trust: a fingerprint (``SHA256:...``), the path of a PEM file of certificates, a
            `twisted.internet.ssl.Certificate`; `None`: the system's certificate authorities.

    Returns:
        An `IOpenSSLClientConnectionCreator`.

    Raises:
        ValueError: `trust` is none of these.
    """
    if isinstance(trust, str) and trust.startswith(PIN_PREFIX):
        return PinnedKey(trust, host)
    if trust is None:
        return ssl.optionsForClientTLS(host)
    if isinstance(trust, (str, os.PathLike)):
        return ssl.optionsForClientTLS(host, trustRoot=ssl.trustRootFromCertificates(_read(trust)))
    return ssl.optionsForClientTLS(host, trustRoot=trust)


def _read(path: str | os.PathLike[str]) -> list[ssl.Certificate]:
    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificates(file.read())
    except OSError as error:
        raise ValueError(f"Can't read {path}: {error.strerror}.") from None
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM.") from None
    return [
        ssl.Certificate.loadPEM(each.public_bytes(serialization.Encoding.PEM)) for each in found
    ]


def _isAddress(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Sees the certificate that a server shows, and sends nothing."""

    def __init__(self) -> None:
        self.certificate: Deferred[x509.Certificate] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        """The TLS connection stands."""
        transport: Any = self.transport
        if not self.certificate.called:
            self.certificate.callback(transport.getPeerCertificate().to_cryptography())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, or was never protected."""
        if not self.certificate.called:
            self.certificate.errback(reason)
        self.closed.callback(None)


async def _lookAt(reactor: Any, host: str, port: int, options: Any) -> x509.Certificate:
    endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, host, port))
    handshake: Any = await endpoint.connect(Factory.forProtocol(_Handshake))
    try:
        return await handshake.certificate  # type: ignore[no-any-return]
    finally:
        handshake.transport.abortConnection()
        await handshake.closed


def explainSSL(error: SSL.Error) -> str:
    """
    Args:
        error: why a connection by TLS did not come to be, or broke.

    Returns:
        That in words.
    """
    details = "; ".join(str(part[-1]) for part in (error.args[0] if error.args else []) if part)
    if "verify failed" in details:
        return (
            "The server's certificate is not one that you trust. If it should be, name it: "
            "trust= a file of certificates, or the fingerprint that the server says."
        )
    return f"The connection could not be protected: {details or 'TLS failed'}."


def _late(result: Any, seconds: float) -> Any:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise LoginTimeout(seconds)
    return result


def fetchFingerprint(reactor: Any, host: str, port: int, timeout: float = 30) -> Deferred[str]:
    """
    Look at the key that a server shows, whoever it is: by a TLS handshake after which nothing is
    sent, over a connection that is closed again.

    Args:
        reactor: provides `IReactorTime` and what the connection needs.
        host: the name or address of the server.
        port: its port.
        timeout: seconds that it may take.

    Returns:
        Fires with the fingerprint, once the connection is closed. Fails with

        - `ServerNotTrusted`: it speaks no TLS that is safe;
        - `LoginTimeout`: it took longer;
        - `twisted.internet.error.ConnectError` and its kind: nobody listens there.
    """

    async def fetch() -> str:
        try:
            return fingerprintOf(await _lookAt(reactor, host, port, _AnyKey(host)))
        except SSL.Error as error:
            raise ServerNotTrusted(explainSSL(error)) from None

    return Deferred.fromCoroutine(fetch()).addTimeout(timeout, reactor, _late)


def isVouchedFor(reactor: Any, host: str, port: int, timeout: float = 30) -> Deferred[bool]:
    """
    Ask whether the system's certificate authorities vouch for a server, in the same way.

    Args:
        reactor: as for `fetchFingerprint`, and so are the others.
        host: the name or address that the certificate must be for.
        port: its port.
        timeout: seconds that it may take.

    Returns:
        Fires with the answer; fails as `fetchFingerprint` does, but says only "no" where there
        is no TLS.
    """

    async def ask() -> bool:
        try:
            await _lookAt(reactor, host, port, clientOptions(host, None))
        except (SSL.Error, VerificationError, CertificateError):
            return False
        return True

    return Deferred.fromCoroutine(ask()).addTimeout(timeout, reactor, _late)


def makeCertificate(
    names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"), *, days: float = 365 * _YEARS
) -> bytes:
    """
    Make a self-signed certificate (ECDSA P-256) with its private key.

    Args:
        names: the names and addresses that it is for.
        days: how long it is valid, from yesterday on.

    Returns:
        Private key and certificate, in PEM. Keep it where nobody else can read it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pbauth")])
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday)
        .not_valid_after(yesterday + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.IPAddress(ipaddress.ip_address(each))
                    if _isAddress(each)
                    else x509.DNSName(each)
                    for each in names
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
