"""
How much a client may ask for once it has logged in: calls a second, calls at once, bytes in a
message.

A call over a limit fails with `LimitExceeded`, and is not begun.  At ten times the limit the
connection ends: who goes on like that does not listen.  A message is read until it is ten times too
long, so that there is somebody to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred

from pbauth.audit.events import DropReason
from pbauth.errors import LimitExceeded
from pbauth.wire.decoding import UNLIMITED, Limits, TooMuch

#: So many times the limit end the connection.
FAR = 10


@frozen
class CallLimits:
    """
    The limits of each connection, after the login. `None`: there is no such limit.

    Attributes:
        perSecond: calls a second, in the long run.
        burst: calls at once after a pause.
        atOnce: calls that are being worked on.
        messageBytes: bytes in a message.
        now: returns the time for intervals, in seconds.
        refused: counts what was refused, by the name of the limit.
    """

    perSecond: float | None
    burst: int
    atOnce: int | None
    messageBytes: int | None
    now: Callable[[], float]
    refused: Counter[str] = field(factory=Counter)

    def reading(self, limits: Limits | None) -> Limits | None:
        """
        Return what limits the reader.

        Args:
            limits: those of the client anyway, as of a guest; `None`: there are none.
        """
        if self.messageBytes is None:
            return limits
        return evolve(limits or UNLIMITED, longestMessage=FAR * self.messageBytes)


class CallCounts:
    """
    What one connection has asked for.

    Args:
        limits: its limits.
    """

    __slots__ = ("_far", "_limits", "_near", "_refused", "_underWay")

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._underWay = 0
        # Since a call was begun.
        self._refused = 0
        self._near: Bucket | None = None
        self._far: Bucket | None = None
        if limits.perSecond is not None:
            now = limits.now()
            self._near = Bucket(limits.perSecond, limits.burst, now)
            self._far = Bucket(FAR * limits.perSecond, FAR * limits.burst, now)

    def admit(self, size: int, urgent: bool = False) -> None:
        """
        Count a call that came.

        Args:
            size: of the message, in bytes.
            urgent: it is for the connection itself, and is refused only with the connection.

        Raises:
            LimitExceeded: it is over a limit, and not to be begun.
            TooMuch: it is far over a limit, and the connection is to be dropped.
        """
        limits = self._limits
        if self._near is not None and self._far is not None and limits.perSecond is not None:
            now = limits.now()
            if not self._far.take(now):
                raise TooMuch(
                    DropReason.CALLS, f"more than {FAR} times {limits.perSecond:g} calls a second"
                )
            if not self._near.take(now) and not urgent:
                raise self._refusal("maxCallsPerSecond", limits.perSecond)
        if limits.messageBytes is not None and size > limits.messageBytes:
            raise self.tooLarge()
        if limits.atOnce is not None and self._underWay >= limits.atOnce and not urgent:
            self._refused += 1
            if self._underWay + self._refused >= FAR * limits.atOnce:
                raise TooMuch(
                    DropReason.CALLS, f"more than {FAR} times {limits.atOnce} calls at once"
                )
            raise self._refusal("maxCallsAtOnce", limits.atOnce)

    def exceeds(self, size: int) -> bool:
        """
        Return whether a message is too large.

        Args:
            size: of the message, in bytes.
        """
        return self._limits.messageBytes is not None and size > self._limits.messageBytes

    def tooLarge(self) -> LimitExceeded:
        """Return the error for a message that is too large, and count it."""
        return self._refusal("maxMessageBytes", self._limits.messageBytes or 0)

    def watch(self, running: Deferred[Any]) -> None:
        """
        Count a call as being worked on until its method is done, whether or not anybody waits.

        Args:
            running: what the method gave.
        """
        self._underWay += 1
        running.addBoth(self._done)

    def _done(self, result: Any) -> Any:
        self._underWay -= 1
        self._refused = 0
        return result

    def _refusal(self, limit: str, most: float) -> LimitExceeded:
        self._limits.refused[limit] += 1
        return LimitExceeded(limit, most)


class Bucket:
    """
    Allow a number of calls a second on average, and more at once after a pause.

    Args:
        rate: how much comes in a second.
        size: how much there may be.
        now: the time, in seconds.
    """

    __slots__ = ("_level", "_rate", "_size", "_time")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self._rate = rate
        self._size = self._level = size
        self._time = now

    def take(self, now: float) -> bool:
        """
        Take one, if there is one.

        Args:
            now: the time, in seconds.

        Returns:
            Whether there was one.
        """
        self._level = min(self._size, self._level + (now - self._time) * self._rate)
        self._time = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
