"""What happens once on the way of a connection, or never; and who waits for it."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure


class Milestone:
    """
    One of them. The first word counts: what was reached can't be missed any more, and the other
    way round.
    """

    __slots__ = ("_missed", "_waiting", "reached")

    def __init__(self) -> None:
        self.reached = False
        self._missed: Failure | None = None
        self._waiting: list[Deferred[None]] | None = None

    def reach(self) -> None:
        """It happened."""
        if not self.reached and self._missed is None:
            self.reached = True
            for waiter in self._takeWaiting():
                waiter.callback(None)

    def miss(self, reason: Failure) -> None:
        """It will never happen."""
        if not self.reached and self._missed is None:
            self._missed = reason
            for waiter in self._takeWaiting():
                waiter.errback(reason)

    def wait(self) -> Deferred[None]:
        """
        Returns:
            Fires once it has happened; fails with the reason if it never will. May be cancelled.
        """
        if self.reached:
            return succeed(None)
        if self._missed is not None:
            return fail(self._missed)
        if self._waiting is None:
            self._waiting = []
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def _takeWaiting(self) -> list[Deferred[None]]:
        waiting, self._waiting = self._waiting, None
        return waiting or []
