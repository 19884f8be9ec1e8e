"""
The client's half of the mechanisms in which the client's first message says it all: `ANONYMOUS`,
`EXTERNAL` and `PLAIN`.  Challenge, response and outcome are empty.
"""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import implementer

from pbauth.errors import ServerNotTrusted
from pbauth.interfaces import IClientExchange


@implementer(IClientExchange)
@frozen
class OneMessageClient:
    """
    One login.

    Attributes:
        initial: the message; it may hold a password.
        bound: the TLS handshake proves who the client is.
    """

    initial: bytes = field(repr=False)
    bound: bool = False

    def respond(self, challenge: bytes) -> bytes:
        """
        Answer the challenge, which is empty, by nothing.

        Raises:
            ServerNotTrusted: it is not.
        """
        self.checkOutcome(challenge)
        return b""

    def checkOutcome(self, outcome: bytes) -> None:
        """
        Check the last message, which is empty.

        Raises:
            ServerNotTrusted: it is not.
        """
        if outcome:
            raise ServerNotTrusted("The server's message is not one of this mechanism.")
