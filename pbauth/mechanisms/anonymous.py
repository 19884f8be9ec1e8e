"""
ANONYMOUS (RFC 4505), without I/O: nothing is proved, and the client gets the policy's guest.
"""

from __future__ import annotations

from zope.interface import implementer

from pbauth.errors import ExchangeRefused, ServerNotTrusted
from pbauth.interfaces import IClientExchange, IExchange

NAME = "ANONYMOUS"

_LONGEST_TRACE = 255


@implementer(IClientExchange)
class AnonymousClient:
    """
    The client's half.

    Args:
        trace: what the client likes to tell of itself, for the server's log.
    """

    def __init__(self, trace: str = "") -> None:
        self.initial = trace.encode("utf-8")

    def respond(self, challenge: bytes) -> bytes:
        """Answer the challenge, which is empty, by nothing."""
        return b""

    def checkOutcome(self, outcome: bytes) -> None:
        """
        Check the last message, which is empty.

        Raises:
            ServerNotTrusted: it is not.
        """
        if outcome:
            raise ServerNotTrusted("The server's last message is not one of this mechanism.")


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
