"""
How a server lets go of its clients before it stops.

Clients that have pbauth are informed, and have time to attach elsewhere; they close their
connections themselves.  The connections of others are closed one after the other, each as soon as
no call is under way on it.  What is left when the time is up is closed.
"""

from __future__ import annotations

import secrets
from typing import Any

from twisted.internet.defer import Deferred

from pbauth.login.attempts import Attempts
from pbauth.login.connectionlimits import ConnectionLimits
from pbauth.perspectives.sessions import Sessions

#: How often it is looked which connections can be closed, in seconds.
LOOK = 0.25

#: Connections of clients that do not have pbauth are closed within this part of the time, each when
#: no call is under way; the others, if their clients are still there, after it.
SPREAD = 1 / 2

#: Seconds that connections may take to close once the time is up, before they are cut.
CLOSING_TIME = 2.0

_RANDOM = secrets.SystemRandom()


class Drain:
    """
    The end of all connections of a server.

    Args:
        limits: what all its ports share, which knows the connections.
        sessions: on them.
        reactor: provides `IReactorTime`.

    Attributes:
        begun: whether it has begun.
    """

    def __init__(self, limits: ConnectionLimits, sessions: Sessions, reactor: Any) -> None:
        self.begun = False
        self._limits = limits
        self._sessions = sessions
        self._reactor = reactor
        self._done: Deferred[None] = Deferred()
        self._timer: Any = None
        # When, by the reactor's clock.
        self._deadline = 0.0
        self._cut = 0.0
        # From when on a connection may be closed.
        self._due: dict[Attempts, float] = {}

    def run(self, seconds: float) -> Deferred[None]:
        """
        Tell the clients, and close the connections.

        Args:
            seconds: how long that may take.

        Returns:
            Fires when they are closed. Nobody may connect meanwhile.
        """
        now = self._reactor.seconds()
        self.begun = True
        self._setDeadline(now + seconds)
        for connection in list(self._limits.connections):
            told = connection.leave(seconds)
            chance = _RANDOM.random()
            self._due[connection] = now + seconds * SPREAD * (1 + chance / 2 if told else chance)
        self._look()
        return self._done

    def hurry(self) -> None:
        """Close all that is left now."""
        if self._timer is not None:
            self._timer.cancel()
            self._setDeadline(self._reactor.seconds())
            self._look()

    def _setDeadline(self, when: float) -> None:
        self._deadline = when
        self._cut = when + CLOSING_TIME

    def _look(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        busy = {session.broker for session in self._sessions if session.busy}
        for connection in list(self._limits.connections):
            if now >= self._cut:
                connection.cut()
            elif now >= self._deadline or (
                now >= self._due.get(connection, now) and connection.isIdle(busy)
            ):
                connection.close()
        if self._limits.connections:
            self._timer = self._reactor.callLater(LOOK, self._look)
        else:
            self._done.callback(None)
