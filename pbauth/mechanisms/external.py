"""
EXTERNAL (RFC 4422, appendix A), without I/O: the TLS client certificate speaks.

The TLS handshake proved that the client holds the private key of the certificate that it showed.
Whose key that is, the account says: it lists keys by fingerprint, and who signed the certificate,
for which name and for how long does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from attrs import evolve, field, frozen
from zope.interface import implementer

from pbauth.errors import ExchangeRefused
from pbauth.interfaces import IExchange, IMechanism
from pbauth.mechanisms.authorizedkeys import (
    AuthorizedKeys,
    checkExpiry,
    checkLabel,
    joinExpiry,
    splitExpiry,
    tidyLabel,
)
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.terms import Claimant, Terms
from pbauth.net.fingerprints import checkPin

NAME = "EXTERNAL"


@frozen
class CertificateKey:
    """
    The key of a TLS client certificate that opens an account.

    Attributes:
        pin: the fingerprint of the certificate's public key, ``SHA256:...``.
        label: what its owner calls it.
        expires: from when on it opens the account no more, an aware `datetime`; `None`: never.
    """

    mechanism: ClassVar[str] = NAME

    pin: str = field(converter=checkPin)
    label: str = field(default="", eq=False, converter=tidyLabel, validator=checkLabel)
    expires: datetime | None = field(default=None, eq=False, converter=checkExpiry)

    @classmethod
    def fromLine(cls, line: str) -> CertificateKey:
        """
        Read what `line` wrote.

        Raises:
            ValueError: it is not of that form.
        """
        expires, line = splitExpiry(line)
        pin, _, label = line.strip().partition(" ")
        return cls(pin, label.strip(), expires)

    def expiring(self, expires: datetime | None) -> CertificateKey:
        """
        Return this key with another end.

        Args:
            expires: from when on it opens the account no more; `None`: never.
        """
        return evolve(self, expires=expires)

    def line(self) -> str:
        """Return the fingerprint, and the label after it; in front, when the key expires."""
        return joinExpiry(self.expires, f"{self.pin} {self.label}".strip())

    def fingerprint(self) -> str:
        """Return the fingerprint: ``SHA256:...``."""
        return self.pin


@implementer(IExchange)
class ExternalServer:
    """
    The server's half of one login.

    Args:
        authorized: the keys of the claimed identity; none, for one that does not exist.
        pin: the fingerprint of the key that the client proved to hold, or `None`.
    """

    #: The client has signed the handshake of this connection.
    bound = True

    def __init__(self, authorized: AuthorizedKeys, pin: str | None) -> None:
        self._authorized = authorized
        self.proof = None if pin is None else CertificateKey(pin)

    def challenge(self, initial: bytes) -> bytes:
        """
        Take the first message, which is empty: acting as somebody else is not supported.

        Raises:
            ExchangeRefused: it is not.
        """
        if initial != b"":
            raise ExchangeRefused("the first message is not empty")
        return b""

    def outcome(self, response: bytes) -> bytes:
        """
        Take the response, which is empty, and look at the certificate.

        Raises:
            ExchangeRefused: there is none, or it is not one of the identity's.
        """
        if response != b"":
            raise ExchangeRefused("a response that nothing asked for")
        if self.proof is None or not self._authorized.covers(self.proof):
            raise ExchangeRefused("the certificate is not one of this identity")
        return b""


@implementer(IMechanism)
@frozen
class ExternalMechanism:
    """The mechanism `EXTERNAL`, as a server offers it."""

    name = verifierName = NAME
    listedAs = frozenset({NAME})
    hasSwitch = False
    usesKeys = True
    provesNothing = False
    asksIdentity = False

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """Return whether the client showed a certificate."""
        return channel.peerPin is not None

    def identityFor(self, name: str, terms: Terms) -> str:
        """Return the claimed name."""
        return name

    def decodeVerifier(self, text: str) -> AuthorizedKeys:
        """Read a list of keys."""
        return AuthorizedKeys.decode(text, mechanism=NAME, readLine=CertificateKey.fromLine)

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> ExternalServer:
        """Begin the server's half of one login."""
        return ExternalServer(claimant.verifier, channel.peerPin)
