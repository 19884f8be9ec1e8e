"""
The mechanisms: how an identity proves who it is.

Each mechanism has a module of its own here, with the client's and the server's half side by side,
pure: no I/O, no clock, no thread; randomness is handed in.  This module says which mechanisms and
which verifiers there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pbauth.interfaces import IMechanism
from pbauth.mechanisms import ed25519, external, md5, scram
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.ed25519 import Ed25519Mechanism, PublicKey
from pbauth.mechanisms.external import CertificateKey, ExternalMechanism
from pbauth.mechanisms.md5 import MD5Verifier
from pbauth.mechanisms.scram import ScramMechanism, ScramVerifier

#: What an identity keeps, by mechanism.
Verifier = ScramVerifier | MD5Verifier | AuthorizedKeys

_DECODERS: dict[str, Callable[[str], Verifier]] = {
    scram.NAME: ScramVerifier.decode,
    md5.NAME: MD5Verifier.decode,
    ed25519.NAME: partial(
        AuthorizedKeys.decode, mechanism=ed25519.NAME, readLine=PublicKey.fromLine
    ),
    external.NAME: partial(
        AuthorizedKeys.decode, mechanism=external.NAME, readLine=CertificateKey.fromLine
    ),
}

#: The mechanisms by which keys open an account, and no password does.
KEY_MECHANISMS = (ed25519.NAME, external.NAME)


def decodeVerifier(text: str) -> Verifier:
    """
    Read a verifier that any mechanism encoded.

    Args:
        text: what a verifier's `encode` gave.

    Returns:
        The verifier.

    Raises:
        ValueError: no mechanism knows this form.
    """
    decode = _DECODERS.get(text.partition("$")[0])
    if decode is None:
        raise ValueError("This is not a verifier of any known mechanism.")
    return decode(text)


#: The server's half of each mechanism that proves by a verifier, strongest first.
SERVER_MECHANISMS: tuple[IMechanism, ...] = (
    ScramMechanism(bound=True),
    ScramMechanism(),
    Ed25519Mechanism(),
    ExternalMechanism(),
)
