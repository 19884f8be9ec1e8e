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
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

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
        self._host = "" if _isAddress(host) else host
        self._context = ssl.CertificateOptions(raiseMinimumTo=ssl.TLSVersion.TLSv1_2).getContext()
        self._context.set_verify(SSL.VERIFY_PEER, self._verify)

    def _verify(self, connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
        if depth:
            return True
        return hmac.compare_digest(fingerprintOf(certificate.to_cryptography()), self._pin)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        """Make a connection (see `IOpenSSLClientConnectionCreator`)."""
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        if self._host:
            connection.set_tlsext_host_name(self._host.encode("idna"))
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
