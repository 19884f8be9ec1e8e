"""What a server decides about mechanisms, and whom a client claims to be."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from pbauth.errors import ExchangeRefused, Unauthorized
from pbauth.interfaces import IIdentity


@frozen
class Terms:
    """
    What decides, besides the connection, which mechanisms a server offers.

    Attributes:
        externalPasswords: passwords are checked by somebody else who has to see them.
        guest: the name of the identity that anonymous clients log in as; `None`: there are none.
        legacy: clients of Twisted 1.x and of stock Twisted may log in.
        vouchers: vouchers are taken.
    """

    externalPasswords: bool = False
    guest: str | None = None
    legacy: bool = False
    vouchers: bool = False


@frozen
class Claimant:
    """
    Whom a client claims to be.

    Attributes:
        name: the claimed name.
        identity: of that name; `None`: there is none, and whatever is proved proves nothing.
        verifier: of the identity; or a decoy, that nothing fits. `None` for a mechanism that has
            none.
    """

    name: str
    identity: IIdentity | None = None
    verifier: Any = field(default=None, repr=False)


async def confirmed(check: Any, *arguments: object, reason: str) -> bytes:
    """
    Let an identity check a proof itself.

    Args:
        check: the identity's method; it may return a plain value, a Deferred or a coroutine.
        arguments: for the method.
        reason: of the refusal, for the audit log, unless the identity has raised it from an
            `ExchangeRefused` that says more.

    Returns:
        The empty last message of such a mechanism.

    Raises:
        ExchangeRefused: the identity does not accept the proof.
    """
    try:
        answer = check(*arguments)
        if hasattr(answer, "__await__"):
            await answer
    except Unauthorized as refusal:
        raise ExchangeRefused(reasonOf(refusal, reason)) from None
    return b""


def reasonOf(refusal: BaseException, otherwise: str) -> str:
    """
    Return why a proof was refused, which the client is not told.

    Args:
        refusal: what was raised; ``raise Unauthorized() from ExchangeRefused(reason)`` says why.
        otherwise: the reason where it does not.
    """
    cause = refusal.__cause__
    return cause.reason if isinstance(cause, ExchangeRefused) else otherwise


#: Why a login is refused, of an identity that has no verifier for the mechanism.
NO_VERIFIER = "this identity can't log in with this mechanism"
