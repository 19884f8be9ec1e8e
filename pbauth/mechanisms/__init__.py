"""
The mechanisms: how an identity proves who it is.

Each mechanism has a module of its own here, with the client's and the server's half side by side,
pure: no I/O, no clock, no thread; randomness is handed in.  This module is their one registry: what
a server offers, what a policy may name and which verifiers there are follows from `MECHANISMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pbauth.interfaces import IMechanism
from pbauth.mechanisms.anonymous import AnonymousMechanism
from pbauth.mechanisms.authorizedkeys import AuthorizedKey, AuthorizedKeys
from pbauth.mechanisms.ed25519 import Ed25519Mechanism, PublicKey
from pbauth.mechanisms.external import CertificateKey, ExternalMechanism
from pbauth.mechanisms.md5 import MD5Mechanism, MD5Verifier
from pbauth.mechanisms.plain import PlainMechanism
from pbauth.mechanisms.scram import ScramMechanism, ScramVerifier
from pbauth.mechanisms.voucher import IssuedVouchers, VoucherMechanism

#: What an identity keeps, by mechanism.
Verifier = ScramVerifier | MD5Verifier | AuthorizedKeys | IssuedVouchers

#: All mechanisms, strongest first.
MECHANISMS: tuple[IMechanism, ...] = (
    ScramMechanism(bound=True),
    ScramMechanism(),
    Ed25519Mechanism(),
    ExternalMechanism(),
    VoucherMechanism(),
    PlainMechanism(),
    AnonymousMechanism(),
    MD5Mechanism(),
)

#: The names that identities keep verifiers of their password under.
PASSWORD_MECHANISMS = frozenset(
    each.verifierName for each in MECHANISMS if each.verifierName and not each.usesKeys
)

_KEY_READERS: dict[str, Callable[[str], AuthorizedKey]] = {
    kind.mechanism: kind.fromLine for kind in (PublicKey, CertificateKey)
}

#: The names that identities keep their authorized public keys under.
KEY_MECHANISMS = tuple(_KEY_READERS)

_BY_VERIFIER = {each.verifierName: each for each in MECHANISMS if each.verifierName is not None}


def verifiersFor(names: Iterable[str]) -> frozenset[str]:
    """
    Return what an identity needs one of in order to log in.

    Args:
        names: of the mechanisms that a server offers, as a policy lists them.

    Returns:
        The names that identities keep the verifiers and public keys of these mechanisms under.
    """
    offered = frozenset(names)
    return frozenset(
        each.verifierName
        for each in MECHANISMS
        if each.verifierName in {*KEY_MECHANISMS, *PASSWORD_MECHANISMS} and each.listedAs & offered
    )


def decodeKey(mechanism: str, line: str) -> AuthorizedKey:
    """
    Read a public key.

    Args:
        mechanism: the name of the mechanism that it is for.
        line: what the key's `line` gave.

    Returns:
        The key.

    Raises:
        ValueError: it is none of this mechanism.
    """
    read = _KEY_READERS.get(mechanism)
    if read is None:
        raise ValueError("There are no keys of this mechanism.")
    return read(line)


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


def withoutPassword(verifiers: Mapping[str, Verifier]) -> dict[str, Verifier]:
    """
    Return what an identity keeps when its password changes.

    Args:
        verifiers: all that it has, by the name of the mechanism.

    Returns:
        Its public keys, and those of its vouchers that survive such a change.
    """
    kept: dict[str, Verifier] = {}
    for name, each in verifiers.items():
        if isinstance(each, IssuedVouchers):
            each = each.afterPasswordChange()
            if not each.vouchers:
                continue
        if name not in PASSWORD_MECHANISMS:
            kept[name] = each
    return kept
