"""
PB-MD5, the challenge and response of Twisted 1.x and of stock Twisted.

Off by default, for good reasons: the verifier is as good as the password, nothing proves the
server, and MD5 is broken.  This is the only module that calls MD5, and it says to OpenSSL that
the use is not for security, so that the rest of a program may run where MD5 is blocked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from zope.interface import implementer

from pbauth.errors import ExchangeRefused
from pbauth.interfaces import IExchange, IMechanism
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.terms import Claimant, Terms, confirmed

NAME = "PB-MD5"

#: Bytes in a challenge.
CHALLENGE_BYTES = 16


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


@frozen
class MD5Verifier:
    """
    What a server keeps for this scheme.

    Attributes:
        digest: the MD5 of the password in UTF-8; whoever has it can log in with this scheme.
    """

    digest: bytes = field(repr=False)

    @classmethod
    def fromPassword(cls, password: str) -> MD5Verifier:
        """Make the verifier of a password."""
        return cls(_md5(password.encode("utf-8")))

    def covers(self, proof: object) -> bool:
        """Return whether a login that was proved by this verifier is still valid."""
        return proof == self

    def accepts(self, challenge: bytes, response: bytes) -> bool:
        """Return whether the response was made from the password and this challenge."""
        return hmac.compare_digest(_md5(self.digest + challenge), response)

    def encode(self) -> str:
        """Return the value as text, for a store."""
        return f"{NAME}${base64.b64encode(self.digest).decode('ascii')}"

    @classmethod
    def decode(cls, text: str) -> MD5Verifier:
        """
        Read what `encode` wrote.

        Raises:
            ValueError: it is not of that form.
        """
        name, _, digest = text.partition("$")
        made = cls(base64.b64decode(digest, validate=True))
        if name != NAME or len(made.digest) != 16:
            raise ValueError("This is not a PB-MD5 verifier.")
        return made


def respond(password: str, challenge: bytes) -> bytes:
    """
    Return the client's half: ``md5(md5(password) + challenge)``.

    Args:
        password: the password.
        challenge: what the server sent.

    Returns:
        The response, 16 bytes.
    """
    return _md5(_md5(password.encode("utf-8")) + challenge)


@implementer(IExchange)
class MD5Server:
    """
    The server's half of one login: the identity itself makes the challenge and checks the response.

    Args:
        claimant: whom the client claims to be.
        randomBytes: makes the challenge of a name that does not exist.
    """

    bound = False

    def __init__(self, claimant: Claimant, randomBytes: Callable[[int], bytes]) -> None:
        self._identity = claimant.identity
        self.proof = claimant.verifier
        self._randomBytes = randomBytes
        self._challenge = b""

    async def challenge(self, initial: bytes) -> bytes:
        """Return the challenge."""
        if self._identity is None:
            self._challenge = self._randomBytes(CHALLENGE_BYTES)
        else:
            made: Any = self._identity.challenge()
            self._challenge = await made if hasattr(made, "__await__") else made
        return self._challenge

    async def outcome(self, response: bytes) -> bytes:
        """
        Check the response.

        Raises:
            ExchangeRefused: it does not fit.
        """
        if not isinstance(response, bytes):
            raise ExchangeRefused("the response is not bytes")
        if self._identity is None:
            # The same work as for a name that exists.
            self.proof.accepts(self._challenge, response)
            raise ExchangeRefused("no such identity")
        return await confirmed(
            self._identity.verifyPassword,
            self._challenge,
            response,
            reason="wrong password",
        )


@implementer(IMechanism)
@frozen
class MD5Mechanism:
    """The mechanism `PB-MD5`, as a server offers it."""

    name = verifierName = NAME
    listedAs = frozenset[str]()
    hasSwitch = True
    usesKeys = False
    provesNothing = False
    asksIdentity = True

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """Return whether clients of Twisted 1.x and of stock Twisted may log in."""
        return terms.legacy

    def identityFor(self, name: str, terms: Terms) -> str:
        """Return the claimed name."""
        return name

    def decodeVerifier(self, text: str) -> MD5Verifier:
        """Read a verifier."""
        return MD5Verifier.decode(text)

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> MD5Server:
        """Begin the server's half of one login."""
        return MD5Server(claimant, randomBytes)
