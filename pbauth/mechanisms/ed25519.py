"""
ED25519: a login with a key pair, without I/O.

The client names its public key, the server challenges it, and the client signs; the server learns
nothing that would let it, or a thief of its store, log in anywhere.  What is signed (`toBeSigned`)
names the account, the key, the challenge and the TLS connection, each with its length in front, so
that a signature is of use for this login only: not on another connection, not for another name,
not for another protocol.  The server is not proved by this exchange; that is for TLS.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from attrs import Attribute, evolve, field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from zope.interface import implementer

from pbauth.errors import ExchangeRefused, ServerNotTrusted
from pbauth.interfaces import IClientExchange, IExchange, IMechanism
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

NAME = "ED25519"

#: Bytes in a public key, and in a challenge.
KEY_BYTES = CHALLENGE_BYTES = 32

#: What SSH calls keys of this type, and their signatures.
SSH_TYPE = b"ssh-ed25519"

_SIGNATURE_BYTES = 64
_LABEL = b"pbauth login by ED25519, version 1"


def toBeSigned(
    name: str, publicKey: bytes, challenge: bytes, channelBinding: bytes | None
) -> bytes:
    """
    Return the text that a login signs.

    Args:
        name: the claimed identity's.
        publicKey: raw, 32 bytes.
        challenge: the server's, 32 bytes.
        channelBinding: of the TLS connection; `None` without TLS.

    Returns:
        Label, name, key, challenge and binding, each behind its length in four bytes.
    """
    return behindLengths(_LABEL, name.encode("utf-8"), publicKey, challenge, channelBinding or b"")


def behindLengths(*parts: bytes) -> bytes:
    """Return byte strings in a row, each behind its length in four bytes."""
    return b"".join(struct.pack("!I", len(part)) + part for part in parts)


def verifies(key: bytes, signature: Any, data: bytes) -> bool:
    """
    Check a signature.

    Args:
        key: the public key.
        signature: whatever came as one.
        data: what it has to be on.

    Returns:
        Whether it is right.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _fromSSH(blob: object, size: int) -> bytes | None:
    """
    Return what SSH writes after the name of the type: a key or a signature (RFC 8709, sections 4
    and 6). `None` if this is not of that form, to the byte.
    """
    raw = blob[-size:] if isinstance(blob, bytes) else b""
    return raw if blob == behindLengths(SSH_TYPE, raw) else None


def _checkRaw(instance: PublicKey, attribute: Attribute[bytes], value: bytes) -> None:
    if not isinstance(value, bytes) or len(value) != KEY_BYTES:
        raise ValueError(f"A public key of this type has {KEY_BYTES} bytes.")


@frozen
class PublicKey:
    """
    One public key of an identity.

    Attributes:
        raw: the key, 32 bytes.
        label: what its owner calls it.
        expires: from when on it opens the account no more, an aware `datetime`; `None`: never.
    """

    mechanism: ClassVar[str] = NAME

    raw: bytes = field(validator=_checkRaw)
    label: str = field(default="", eq=False, converter=tidyLabel, validator=checkLabel)
    expires: datetime | None = field(default=None, eq=False, converter=checkExpiry)

    @classmethod
    def fromLine(cls, line: str) -> PublicKey:
        """
        Read a line of OpenSSH's ``authorized_keys``, or of a ``.pub`` file.

        Args:
            line: ``ssh-ed25519 AAAA... label``; of the options in front, ``expiry-time`` is
                supported, in UTC.

        Returns:
            The key.

        Raises:
            ValueError: it is no such line, or a key of another type.
        """
        expires, line = splitExpiry(line)
        kind, encoded, label = [*line.strip().split(None, 2), "", "", ""][:3]
        if kind.encode() != SSH_TYPE:
            raise ValueError(
                "This is not a line 'ssh-ed25519 AAAA... label'. Make a key of that type: "
                "ssh-keygen -t ed25519"
            )
        try:
            raw = cls.fromBlob(base64.b64decode(encoded, validate=True)).raw
        except ValueError:
            raise ValueError("The key in this line is damaged.") from None
        return cls(raw, label, expires)

    @classmethod
    def fromBlob(cls, blob: bytes) -> PublicKey:
        """
        Read a key as it crosses a connection of SSH.

        Args:
            blob: the type and the key.

        Returns:
            The key, without a label.

        Raises:
            ValueError: it is not a key, or one of another type.
        """
        raw = _fromSSH(blob, KEY_BYTES)
        if raw is None:
            raise ValueError("This is not a key of the type ssh-ed25519.")
        return cls(raw)

    def hasSigned(self, data: bytes, signature: bytes) -> bool:
        """
        Check a signature of SSH. (The mechanism of this module has its own, see `toBeSigned`.)

        Args:
            data: what was signed.
            signature: the type and the signature, as it crosses a connection of SSH.

        Returns:
            Whether it is a signature of this key on this data; not so for anything malformed.
        """
        raw = _fromSSH(signature, _SIGNATURE_BYTES)
        if raw is None or not isinstance(data, bytes):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(raw, data)
        except (InvalidSignature, ValueError):
            return False
        return True

    def expiring(self, expires: datetime | None) -> PublicKey:
        """
        Return this key with another end.

        Args:
            expires: from when on it opens the account no more; `None`: never.
        """
        return evolve(self, expires=expires)

    def line(self) -> str:
        """Return the key as a line of ``authorized_keys``."""
        encoded = base64.b64encode(self._blob()).decode("ascii")
        return joinExpiry(self.expires, f"ssh-ed25519 {encoded} {self.label}".strip())

    def fingerprint(self) -> str:
        """Return the fingerprint as OpenSSH writes it: ``SHA256:...``."""
        digest = hashlib.sha256(self._blob()).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    def _blob(self) -> bytes:
        return behindLengths(SSH_TYPE, self.raw)


@implementer(IClientExchange)
class SigningClient:
    """
    The client's half of a login that signs one challenge.

    Args:
        key: the private key.
        initial: the first message.
        toBeSigned: returns what is signed, of the challenge.
        bound: that names the TLS connection.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        initial: bytes,
        toBeSigned: Callable[[bytes], bytes],
        bound: bool,
    ) -> None:
        self._key = key
        self._toBeSigned = toBeSigned
        self.initial = initial
        self.bound = bound

    def respond(self, challenge: bytes) -> bytes:
        """
        Sign the challenge.

        Raises:
            ServerNotTrusted: it is not one of this mechanism.
        """
        if len(challenge) != CHALLENGE_BYTES:
            raise ServerNotTrusted("The server sent a malformed challenge.")
        return self._key.sign(self._toBeSigned(challenge))

    def checkOutcome(self, outcome: bytes) -> None:
        """
        Check the last message, which is empty.

        Raises:
            ServerNotTrusted: it is not.
        """
        if outcome:
            raise ServerNotTrusted("The server's last message is not one of this mechanism.")


class Ed25519Client(SigningClient):
    """
    The client's half of one login.

    Args:
        name: the identity's.
        key: the private key.
        channelBinding: of the TLS connection; `None` without TLS.
    """

    def __init__(self, name: str, key: Ed25519PrivateKey, channelBinding: bytes | None) -> None:
        public = key.public_key().public_bytes_raw()
        super().__init__(
            key,
            public,
            lambda challenge: toBeSigned(name, public, challenge, channelBinding),
            channelBinding is not None,
        )


@implementer(IExchange)
class Ed25519Server:
    """
    The server's half of one login.

    Args:
        name: the claimed identity's.
        authorized: its keys; none, for one that does not exist.
        channelBinding: of the TLS connection; `None` without TLS.
        challenge: 32 random bytes, fresh for each login.
    """

    def __init__(
        self,
        name: str,
        authorized: AuthorizedKeys,
        channelBinding: bytes | None,
        challenge: bytes,
    ) -> None:
        self._name = name
        self._authorized = authorized
        self._channelBinding = channelBinding
        self._challenge: bytes | None = challenge
        self.proof: PublicKey | None = None

    @property
    def bound(self) -> bool:
        """Return whether what is signed names the TLS connection."""
        return self._channelBinding is not None

    def challenge(self, initial: bytes) -> bytes:
        """
        Take the public key, and challenge it.

        Raises:
            ExchangeRefused: it is not a public key.
        """
        if not isinstance(initial, bytes) or len(initial) != KEY_BYTES or not self._challenge:
            raise ExchangeRefused("the first message is not a public key")
        self.proof = PublicKey(initial)
        return self._challenge

    def outcome(self, response: bytes) -> bytes:
        """
        Check the signature.

        Raises:
            ExchangeRefused: out of order, not signed by the key for this login, or the key is not
                one of the identity's.
        """
        challenge, self._challenge = self._challenge, None
        if self.proof is None or challenge is None:
            raise ExchangeRefused("a signature out of order")
        signed = toBeSigned(self._name, self.proof.raw, challenge, self._channelBinding)
        if not verifies(self.proof.raw, response, signed):
            raise ExchangeRefused("the signature is not one of this key for this login")
        if not self._authorized.covers(self.proof):
            raise ExchangeRefused("the key is not one of this identity")
        return b""


@implementer(IMechanism)
@frozen
class Ed25519Mechanism:
    """The mechanism `ED25519`, as a server offers it."""

    name = verifierName = NAME
    listedAs = frozenset({NAME})
    hasSwitch = False
    usesKeys = True
    provesNothing = False
    asksIdentity = False

    def offeredOn(self, channel: Channel, terms: Terms) -> bool:
        """Return `True`: no secret is sent, on any connection."""
        return True

    def identityFor(self, name: str, terms: Terms) -> str:
        """Return the claimed name."""
        return name

    def decodeVerifier(self, text: str) -> AuthorizedKeys:
        """Read a list of keys."""
        return AuthorizedKeys.decode(text, mechanism=NAME, readLine=PublicKey.fromLine)

    def begin(
        self, claimant: Claimant, channel: Channel, randomBytes: Callable[[int], bytes]
    ) -> Ed25519Server:
        """Begin the server's half of one login."""
        return Ed25519Server(
            claimant.name,
            claimant.verifier,
            channel.channelBinding,
            randomBytes(CHALLENGE_BYTES),
        )
