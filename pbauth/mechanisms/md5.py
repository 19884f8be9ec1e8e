"""
PB-MD5, the challenge and response of Twisted 1.x and of stock Twisted (the seed, "Identity").

Off by default, for good reasons: the verifier is as good as the password, nothing proves the
server, and MD5 is broken.  This is the only module that calls MD5, and it says to OpenSSL that
the use is not for security, so that the rest of a program may run where MD5 is blocked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from attrs import field, frozen

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
        digest: the MD5 of the password in UTF-8; whoever has it can log in by this scheme.
    """

    digest: bytes = field(repr=False)

    @classmethod
    def fromPassword(cls, password: str) -> MD5Verifier:
        """Make the verifier of a password."""
        return cls(_md5(password.encode("utf-8")))

    def covers(self, proof: object) -> bool:
        """Whether a login that was proved by this verifier still stands."""
        return proof == self

    def accepts(self, challenge: bytes, response: bytes) -> bool:
        """Whether the response was made from the password and this challenge."""
        return hmac.compare_digest(_md5(self.digest + challenge), response)

    def encode(self) -> str:
        """As text, for a store."""
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
    The client's half: ``md5(md5(password) + challenge)``.

    Args:
        password: the password.
        challenge: what the server sent.

    Returns:
        The response, 16 bytes.
    """
    return _md5(_md5(password.encode("utf-8")) + challenge)
