"""
The mechanisms: how an identity proves who it is.

Each mechanism has a module of its own here, with the client's and the server's half side by side,
pure: no I/O, no clock, no thread; randomness is handed in.  This module is their one registry: what
a server offers, what a policy may name and which verifiers there are follows from `MECHANISMS`.
"""

from __future__ import annotations

from pbauth.interfaces import IMechanism
from pbauth.mechanisms.anonymous import AnonymousMechanism
from pbauth.mechanisms.authorizedkeys import AuthorizedKeys
from pbauth.mechanisms.ed25519 import Ed25519Mechanism
from pbauth.mechanisms.external import ExternalMechanism
from pbauth.mechanisms.md5 import MD5Mechanism, MD5Verifier
from pbauth.mechanisms.plain import PlainMechanism
from pbauth.mechanisms.scram import ScramMechanism, ScramVerifier

#: What an identity keeps, by mechanism.
Verifier = ScramVerifier | MD5Verifier | AuthorizedKeys

#: All mechanisms, strongest first.
MECHANISMS: tuple[IMechanism, ...] = (
    ScramMechanism(bound=True),
    ScramMechanism(),
    Ed25519Mechanism(),
    ExternalMechanism(),
    PlainMechanism(),
    AnonymousMechanism(),
    MD5Mechanism(),
)

#: The names that identities keep lists of public keys under, which no password opens.
KEY_MECHANISMS: tuple[str, ...] = tuple(each.verifierName for each in MECHANISMS if each.usesKeys)

_BY_VERIFIER = {each.verifierName: each for each in MECHANISMS if each.verifierName is not None}


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
    mechanism = _BY_VERIFIER.get(text.partition("$")[0])
    if mechanism is None:
        raise ValueError("This is not a verifier of any known mechanism.")
    decoded: Verifier = mechanism.decodeVerifier(text)
    return decoded
