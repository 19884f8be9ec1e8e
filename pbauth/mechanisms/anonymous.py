"""
ANONYMOUS (RFC 4505), without I/O: nothing is proved, and the client gets the policy's guest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from attrs import frozen
from zope.interface import implementer

from pbauth.errors import ExchangeRefused
from pbauth.interfaces import IExchange, IMechanism
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.onemessage import OneMessageClient
from pbauth.mechanisms.terms import Claimant, Terms

NAME = "ANONYMOUS"

_LONGEST_TRACE = 255


def beginClient(trace: str = "") -> OneMessageClient:
    """
    Begin the client's half.

    Args:
        trace: what the client likes to tell of itself, for the server's log.
    """
    return OneMessageClient(trace.encode("utf-8"))


@implementer(IExchange)
class AnonymousServer:
    """The server's half; that there is a guest is for the policy to say."""

    proof = None
    bound = False

    def challenge(self, initial: bytes) -> bytes:
        """
        Take what the client tells of itself.

        Raises:
            ExchangeRefused: it is not a short text.
        """
        try:
            if len(initial) > _LONGEST_TRACE:
                raise ExchangeRefused("the trace is too long")
            initial.decode("utf-8")
        except (TypeError, AttributeError, UnicodeDecodeError):
            raise ExchangeRefused("the trace is not text") from None
        return b""

    def outcome(self, response: bytes) -> bytes:
        """
        Take the response, which is empty.

        Raises:
            ExchangeRefused: it is not.
        """
        if response != b"":
            raise ExchangeRefused("a response that nothing asked for")
        return b""


@implementer(IMechanism)
@frozen
class AnonymousMechanism:
    """The mechanism `ANONYMOUS`, as a server offers it."""

    name = NAME
    listedAs = frozenset({NAME})
    hasSwitch = True
    verifierName = None
    usesKeys = False
    provesNothing = True
    asksIdentity = True

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """Return whether there is a guest."""
        return terms.guest is not None

    def identityFor(self, name: str, terms: Terms) -> str | None:
        """Return the guest's name. Whoever claims to be somebody else is nobody."""
        return terms.guest if name in ("", terms.guest) else None

    def decodeVerifier(self, text: str) -> NoReturn:
        """Raise `ValueError`: there are no verifiers."""
        raise ValueError(f"{NAME} has no verifiers.")

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> AnonymousServer:
        """Begin the server's half of one login."""
        return AnonymousServer()
