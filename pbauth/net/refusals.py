"""Why a client does not trust a server's certificate, in words."""

from __future__ import annotations

from typing import Any

from cryptography import x509

#: What a client says of a server that nobody it trusts vouches for.
NOT_TRUSTED = (
    "The server's certificate is not one that you trust. To trust it, pass trust=: a file "
    "of certificates, or the fingerprint that the server shows."
)

#: What it says of one whose certificate is signed by somebody unknown, if that came alone.
INCOMPLETE = (
    "The server's certificate is not one that you trust: an authority that you do not know signed "
    "it, or the server does not send the whole chain. To trust it, pass trust=: a file of "
    "certificates, or the fingerprint that the server shows."
)

#: What it says of a server whose certificate is for another name.
OTHER_NAME = "The server's certificate is for another name than the one you connect to."

# Of OpenSSL, x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_NO_ISSUER, _NO_ISSUER_LOCALLY, _LEAF_ALONE = 2, 20, 21
_OTHER_NAMES = (62, 64)


def explainRefusal(code: int, depth: int, certificate: x509.Certificate | None) -> str:
    """
    Explain why OpenSSL does not accept a certificate.

    Args:
        code: of OpenSSL, ``X509_V_ERR_...``.
        depth: of the certificate in the chain; 0: it is the server's own.
        certificate: which one, or `None`.

    Returns:
        A sentence or two.
    """
    which = "The server's certificate" if depth == 0 else "A certificate in the server's chain"
    if code == _EXPIRED:
        when = "" if certificate is None else f" on {certificate.not_valid_after_utc:%Y-%m-%d}"
        return f"{which} has expired{when}. The operator of the server has to renew it."
    if code == _NOT_YET_VALID:
        when = "yet" if certificate is None else f"before {certificate.not_valid_before_utc:%c}"
        return f"{which} is not valid {when} UTC. Check the clock of this machine."
    if code in _OTHER_NAMES:
        return OTHER_NAME
    if depth == 0 and code in (_NO_ISSUER, _NO_ISSUER_LOCALLY, _LEAF_ALONE):
        return INCOMPLETE
    return NOT_TRUSTED


def noteRefusal(connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
    """
    Accept what OpenSSL accepts, and note why it does not (see `OpenSSL.SSL.Connection.set_verify`).

    The error of the handshake does not say; `notedRefusal` does.
    """
    protocol = connection.get_app_data()
    if not ok and protocol is not None and notedRefusal(protocol) is None:
        protocol.refusedBecause = explainRefusal(code, depth, certificate.to_cryptography())
    return bool(ok)


def notedRefusal(protocol: Any) -> str | None:
    """
    Return why the certificate of a connection was not accepted.

    Args:
        protocol: that of TLS, the transport of a connection.

    Returns:
        The explanation; `None`: it was accepted, or nobody looked.
    """
    because: str | None = getattr(protocol, "refusedBecause", None)
    return because
