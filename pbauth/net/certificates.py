"""Certificates and their private keys: read from files, put together, made."""

from __future__ import annotations

import datetime
import ipaddress
import os
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet import ssl

from pbauth._arguments import listed

_SIGNS_HANDSHAKES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def privateCertificate(key: Any, certificate: x509.Certificate) -> ssl.PrivateCertificate:
    """
    Put a certificate and its private key together.

    Raises:
        ValueError: they do not belong together.
    """
    if certificate.public_key() != key.public_key():
        raise ValueError("The private key does not belong to the certificate.")
    return ssl.PrivateCertificate.loadPEM(_dump(key, certificate))


def _dump(key: Any, certificate: x509.Certificate) -> bytes:
    dumped: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return dumped + certificate.public_bytes(serialization.Encoding.PEM)


def readCertificates(path: str | os.PathLike[str]) -> list[ssl.Certificate]:
    """
    Read the certificates of a PEM file.

    Args:
        path: of the file.

    Returns:
        The certificates, in the order of the file.

    Raises:
        ValueError: the file can't be read, or holds no certificate.
    """
    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificates(file.read())
    except OSError as error:
        raise ValueError(f"Can't read {path}: {error.strerror}.") from None
    except ValueError:
        raise ValueError(f"{path} contains no certificate in PEM.") from None
    return [
        ssl.Certificate.loadPEM(each.public_bytes(serialization.Encoding.PEM)) for each in found
    ]


def isAddress(host: str) -> bool:
    """Return whether a host is given as an IP address, not by name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def makeCertificate(
    names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"), *, days: float = 3650
) -> bytes:
    """
    Make a self-signed certificate (ECDSA P-256) with its private key.

    It is an end-entity certificate (RFC 5280, section 4.2.1.9): whoever trusts it trusts this key,
    and no other certificate that the key might sign.

    Args:
        names: the names and addresses that it is for.
        days: how long it is valid, from yesterday on.

    Returns:
        Private key and certificate, in PEM. Keep it where nobody else can read it.
    """
    given = listed(names, "names and addresses", "names")
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
                    if isAddress(each)
                    else x509.DNSName(each)
                    for each in given
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS_HANDSHAKES, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return _dump(key, certificate)
