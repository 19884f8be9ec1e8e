"""
What a peer may send before it has logged in: calls with plain arguments, small ones, of what a
login takes; and not more than so many bytes in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pbauth.wire.decoding import Limits, MalformedMessage

#: For the reader, of every connection that is not logged in.
LIMITS = Limits()

# What takes a reference to the client's object.
_TAKE_REFERENCES = (b"respond", b"loginAnonymous")


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
        """Whether the peer has sent more bytes than it may."""
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
        Tell whether a message is one of those that a login takes.

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
