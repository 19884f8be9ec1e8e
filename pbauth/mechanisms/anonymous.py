"""
ANONYMOUS (RFC 4505), without I/O: nothing is proved, and the client gets the policy's guest.
"""

from __future__ import annotations

from zope.interface import implementer

from pbauth.errors import ExchangeRefused
from pbauth.interfaces import IExchange
from pbauth.mechanisms.onemessage import OneMessageClient

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

    def challenge(self, initial: bytes) -> bytes:
        """
        Take what the client tells of itself.

        Raises:
            ExchangeRefused: it is no short text.
        """
        try:
            if len(initial) > _LONGEST_TRACE:
                raise ExchangeRefused("the trace is too long")
            initial.decode("utf-8")
        except (TypeError, AttributeError, UnicodeDecodeError):
            raise ExchangeRefused("the trace is no text") from None
        return b""

    def outcome(self, response: bytes) -> bytes:
        """
        Take the response, which is empty.

        Raises:
            ExchangeRefused: it is not.
        """
        if response != b"":
            raise ExchangeRefused("a response where there is nothing to say")
        return b""
