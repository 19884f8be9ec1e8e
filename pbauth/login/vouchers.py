"""What a voucher leaves of the keys of its issuer, when a client attaches."""

from __future__ import annotations

from typing import Any

from pbauth.errors import KeyNotFound, LimitExceeded
from pbauth.interfaces import IIdentity
from pbauth.mechanisms.voucher import VoucherProof
from pbauth.names import ANY


def narrowedKeys(voucher: VoucherProof, keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    Return the keys that a voucher is good for.

    Args:
        voucher: of the login.
        keys: of its issuer, as `IIdentity.getAllKeys` returns them.

    Returns:
        Of these, those that the voucher allows; of a key to any perspective, those that it names.
    """
    perspectives = voucher.limits.perspectives
    found: set[tuple[str, str]] = set()
    for service, perspective in keys:
        named = perspectives if perspective == ANY and perspectives is not None else [perspective]
        found.update((service, each) for each in named if voucher.limits.allowsKey(service, each))
    return sorted(found)


def keyFor(identity: IIdentity, serviceName: str, voucher: VoucherProof | None) -> str:
    """
    Return which perspective a client gets that names a service only.

    Args:
        identity: who has logged in.
        serviceName: of the service.
        voucher: of the login, or `None`.

    Raises:
        KeyNotFound: there is no key to this service, or the voucher is not good for it.
    """
    if voucher is None:
        return identity.getKeyForService(serviceName)
    keys = [tuple(key) for key in identity.getAllKeys()]
    names = [name for service, name in narrowedKeys(voucher, keys) if service == serviceName]  # type: ignore[arg-type]
    if identity.name in names or ANY in names:
        return identity.name
    if not names:
        raise KeyNotFound(serviceName)
    return names[0]


def checkSession(
    voucher: VoucherProof, sessions: Any, identityName: str, serviceName: str, perspectiveName: str
) -> None:
    """
    Check that a voucher allows one more session.

    A limit on sessions counts all that were opened with the block that says so, and with whatever
    was made of it, in this server.

    Args:
        voucher: of the login.
        sessions: all, a `pbauth.Sessions`.
        identityName: of the issuer.
        serviceName: to attach to.
        perspectiveName: of that service.

    Raises:
        KeyNotFound: the voucher is not good for this perspective.
        LimitExceeded: there are as many sessions as it allows.
    """
    if not voucher.limits.allowsKey(serviceName, perspectiveName):
        raise KeyNotFound(serviceName, perspectiveName)
    used = (each.voucher for each in sessions.ofIdentity(identityName))
    others = [each for each in used if each is not None]
    for place, block in enumerate(voucher.blocks, 1):
        most = block.limits.sessions
        begins = voucher.blocks[:place]
        if most is not None and sum(each.blocks[:place] == begins for each in others) >= most:
            raise LimitExceeded("sessions", most)
