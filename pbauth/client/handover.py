"""
How a client that stays logged in leaves a server that is about to stop: it attaches elsewhere
before it lets go of the old connection, so that no call fails.

Where that is, is up to what it connects to, a load balancer for instance: the login is the same as
always.  If it fails, it is tried again for as long as the old server is there.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from pbauth.client.reconnect import BackOff, isFinal

#: A client begins to move within this part of the time that its server has left, and within so many
#: seconds: not all at once.
SPREAD = 1 / 3
LONGEST_SPREAD = 10.0

#: How often it is looked whether calls under way on the old connection have been answered, in
#: seconds.
LOOK = 0.05

_RANDOM = SystemRandom()


class Move:
    """
    The moves of one client, one at a time.

    Args:
        logIn: begins a login; gives a Deferred of a perspective, which closes its connection if it
            is cancelled.
        moved: called with the new perspective.
        reactor: provides `IReactorTime`.
        random: returns a number from 0 to 1.
    """

    def __init__(
        self,
        logIn: Callable[[], Deferred[Any]],
        moved: Callable[[Any], None],
        reactor: Any,
        random: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self._logIn = logIn
        self._moved = moved
        self._reactor = reactor
        self._random = random
        self._backOff = BackOff()
        self._failures = 0
        self._cancelled = False
        # What there is of these.
        self._timer: Any = None
        self._login: Deferred[Any] | None = None
        # Connections that are to be closed once nothing is under way on them.
        self._old: list[Any] = []

    def begin(self, seconds: float) -> None:
        """
        Move soon.

        Args:
            seconds: that the server has left.
        """
        if self._timer is None and self._login is None:
            self._failures = 0
            spread = min(seconds * SPREAD, LONGEST_SPREAD)
            self._timer = self._reactor.callLater(spread * self._random(), self._try)

    def cancel(self) -> None:
        """Stay: there is nothing to move from any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._cancelled = True
        if self._login is not None:
            self._login.cancel()

    def letGo(self, broker: Any) -> None:
        """
        Close a connection once the calls under way on it have been answered.

        Args:
            broker: of the connection.
        """
        self._old.append(broker)
        broker.whenClosed().addCallback(lambda _: self._old.remove(broker))
        self._closeIfIdle(broker)

    def end(self) -> Deferred[Any]:
        """
        Close all that there is.

        Returns:
            Fires when it is closed.
        """
        self.cancel()
        ends: list[Deferred[Any]] = []
        if self._login is not None:
            ended: Deferred[None] = Deferred()
            self._login.addBoth(ended.callback)
            ends.append(ended)
        for broker in self._old:
            ends.append(broker.whenClosed())
            broker.transport.loseConnection()
        return DeferredList(ends)

    def _try(self) -> None:
        self._timer = None
        self._cancelled = False
        login = self._login = self._logIn()
        login.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, perspective: Any) -> None:
        self._login = None
        self._moved(perspective)

    def _failed(self, reason: Any) -> None:
        self._login = None
        if self._cancelled or isFinal(reason.value):
            return
        self._failures += 1
        delay = self._backOff(self._failures)
        self._timer = self._reactor.callLater(delay, self._try)

    def _closeIfIdle(self, broker: Any) -> None:
        if broker.disconnected:
            return
        if broker.waitingForAnswers:
            self._reactor.callLater(LOOK, self._closeIfIdle, broker)
        else:
            broker.transport.loseConnection()
