"""
What a peer may send before a login is over.

A client: calls with plain arguments, small ones, of what a login takes; and not more than so many
bytes in all.  A server that has not proved itself: answers, with plain values, references and
pbauth's errors.  Its calls of the client's objects are held back until it has; nothing is made of
them before.

A guest, who has proved nothing, goes on with limits of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.spread import jelly, pb

from pbauth.errors import WireError
from pbauth.wire.decoding import PLAIN_TYPES, Limits, MalformedMessage

#: For the reader, of every connection that is not logged in.
LIMITS = Limits()

#: Of connections that a guest is attached on: whoever comes can be one.
GUEST_LIMITS = Limits(
    longestString=65_536, longestList=1_024, deepest=16, lists=1_024, plainOnly=False
)

# What takes a reference to the client's object.
_TAKE_REFERENCES = (b"respond", b"loginAnonymous", b"attach")


class PreLoginLimits:
    """
    The limits of one connection until its peer has logged in.

    Args:
        mostBytes: that the peer may send until then.
    """

    __slots__ = ("_bytesLeft",)

    def __init__(self, mostBytes: int) -> None:
        self._bytesLeft = mostBytes

    @property
    def exceeded(self) -> bool:
        """Return whether the peer has sent more bytes than it may."""
        return self._bytesLeft < 0

    def count(self, chunk: bytes) -> None:
        """
        Count what was received.

        Args:
            chunk: the bytes.

        Raises:
            MalformedMessage: the peer has sent too many bytes.
        """
        self._bytesLeft -= len(chunk)
        if self._bytesLeft < 0:
            raise MalformedMessage("Security precaution: too many bytes before login.")

    def permit(
        self, items: list[Any], hasReferences: bool, findObject: Callable[[Any], Any]
    ) -> bool:
        """
        Return whether a message is one of those that a login needs.

        Args:
            items: the items of the message, values of which were read.
            hasReferences: some of them are references to objects of the peer's.
            findObject: finds an object that can be called by its number or name; or `None`.

        Returns:
            Whether it may be acted upon.
        """
        command = items[0]
        if command == b"message":
            # Who calls something that was not given would get an error, which is dear to make.
            return (
                len(items) > 3
                and type(items[2]) in (int, bytes)
                and findObject(items[2]) is not None
                and (not hasReferences or items[3] in _TAKE_REFERENCES)
            )
        return not hasReferences and command in (b"version", b"decref")


class UnprovedServerLimits:
    """
    The limits of a client's connection until the server has proved itself.

    Args:
        mostBytes: that the server may send until then.

    Attributes:
        held: the calls that have been held back.
        check: takes what may be the server's proof, and raises `ServerNotTrusted` unless it is one;
            `None`: there is nothing to be proved yet.
    """

    __slots__ = ("_bytesLeft", "check", "held")

    def __init__(self, mostBytes: int) -> None:
        self._bytesLeft = mostBytes
        self.held: list[Any] = []
        self.check: Callable[[bytes], None] | None = None

    @property
    def exceeded(self) -> bool:
        """Return whether the server has sent more bytes than it may."""
        return self._bytesLeft < 0

    def count(self, chunk: bytes) -> None:
        """
        Count what was received.

        Args:
            chunk: the bytes.

        Raises:
            MalformedMessage: the server has sent too many bytes.
        """
        self._bytesLeft -= len(chunk)
        if self._bytesLeft < 0:
            raise MalformedMessage("Security precaution: too many bytes before the proof.")

    def permit(self, items: list[Any], *_: Any) -> bool:
        """Return whether a message may be taken as it is; `holds` tells whether at once."""
        return items[0] in (b"message", b"answer", b"version", b"decref")

    def holds(self, command: str) -> bool:
        """
        Return whether a message has to be held back.

        Args:
            command: its first item.

        Returns:
            Whether it is a call.

        Raises:
            MalformedMessage: it is nothing that a login takes.
        """
        if command in ("answer", "error", "version", "decref"):
            return False
        if command in ("message", "cachemessage"):
            return True
        raise MalformedMessage("It is not for a login")


class _LoginSecurity(jelly.SecurityOptions):
    """Allows plain values, references, and errors whose classes check all that they take."""

    def isTypeAllowed(self, typeName: Any) -> bool:
        """Return whether something of a type may come in."""
        name = typeName.encode("utf-8") if isinstance(typeName, str) else typeName
        known: Any = _REGISTRY.get(name)
        if known is None:
            return name in PLAIN_TYPES
        if known in (pb.RemoteReference, pb.CopiedFailure):
            return True
        return isinstance(known, type) and issubclass(known, WireError)


# Twisted's annotation has text where there is `bytes`.
_REGISTRY: Any = jelly.unjellyableRegistry

#: What a client takes before the server has proved itself.
LOGIN_SECURITY = _LoginSecurity()
