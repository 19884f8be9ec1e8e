"""
What each of our brokers has under the name ``pbauth``: the calls that one end makes to the other
for the connection itself, not for the application.

A stock broker says that it has no such object, which is as good an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pbauth.errors import isPhrase
from pbauth.wire.calls import WireObject

#: The name of the object.
NAME = b"pbauth"

#: Its method by which a server proves itself before it answers the login (see
#: `pbauth.wire.broker.Broker.expectProof`).
PROVED = b"proved"

#: Its method by which a server says that it has ended a session: with the number of the
#: perspective, and the reason.
ENDED = "ended"


#: Its method by which a server says that it is about to stop: with the seconds until it closes the
#: connection.
LEAVING = "leaving"

#: Its method by which a caller says that it no longer waits for the answer to a call: with the
#: number of the request.
CANCEL = "cancel"

#: The longest time that a server may take to stop, in seconds.
LONGEST_LEAVING = 86_400.0

#: So many sessions of one connection are remembered that have ended.
MOST_ENDED = 1024


class Endings:
    """
    What the peer has said of the end of sessions, and of its own, on one connection.

    Attributes:
        reasons: why it has ended sessions, in its words, by the numbers of the perspectives.
        leaves: called with the seconds left once the peer says that it is about to stop; `None`:
            nobody wants to know.
    """

    __slots__ = ("_watching", "leaves", "reasons")

    def __init__(self) -> None:
        self.reasons: dict[Any, str] = {}
        self.leaves: Callable[[float], None] | None = None
        self._watching: dict[Any, Callable[[str], None]] = {}

    def watch(self, luid: Any, tell: Callable[[str], None]) -> None:
        """
        Watch a session.

        Args:
            luid: the number of the perspective.
            tell: called with the reason, once.
        """
        self._watching[luid] = tell

    def note(self, luid: Any, reason: str) -> None:
        """
        Take note that a session has ended.

        Args:
            luid: the number of the perspective.
            reason: why.
        """
        if luid not in self.reasons and len(self.reasons) < MOST_ENDED:
            self.reasons[luid] = reason
            tell = self._watching.pop(luid, None)
            if tell is not None:
                tell(reason)


class PeerObject(WireObject):
    """Take the calls; it has no state, so that all connections share one."""

    def remote_ping(self) -> None:
        """Answer: this is how the peer knows that this end is there (`pbauth.wire.keepalive`)."""

    def remote_proved(self, outcome: Any) -> None:
        """Do nothing: the login is over, or its answer also has the proof."""

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        """Take a call (see `twisted.spread.pb.Referenceable`)."""
        if message not in (ENDED, LEAVING, CANCEL):
            return super().remoteMessageReceived(broker, message, args, kw)
        told = tuple(broker.unserialize(args))
        if message == ENDED:
            if len(told) == 2 and type(told[0]) is int and isPhrase(told[1]):
                broker.endings.note(*told)
        elif message == CANCEL:
            if len(told) == 1:
                broker.cancelUnderWay(told[0])
        elif len(told) == 1 and type(told[0]) in (int, float) and broker.endings.leaves is not None:
            broker.endings.leaves(min(max(0.0, told[0]), LONGEST_LEAVING))
        return broker.serialize(None)
