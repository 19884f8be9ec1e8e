"""
The fingerprint of a certificate's public key: ``SHA256:`` and the base64 of the SHA-256 of the key
in DER (SubjectPublicKeyInfo), the form that RFC 7469 calls a pin.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pbauth._arguments import checkType

PIN_PREFIX = "SHA256:"


def fingerprintOf(certificate: x509.Certificate) -> str:
    """
    Return the fingerprint of a certificate's public key: ``SHA256:`` and base64.

    Args:
        certificate: of a server, or of a client.

    Raises:
        TypeError: it is not a certificate.
    """
    checkType(x509.Certificate, certificate, "certificate")
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
        ValueError: it is not one.
    """
    digest = pin.removeprefix(PIN_PREFIX)
    try:
        raw = base64.b64decode(digest + "=" * (-len(digest) % 4), validate=True)
    except ValueError:
        raw = b""
    if not pin.startswith(PIN_PREFIX) or len(raw) != 32:
        raise ValueError(f"{pin!r} is not a fingerprint: SHA256: and 44 characters of base64.")
    return PIN_PREFIX + base64.b64encode(raw).decode("ascii")
