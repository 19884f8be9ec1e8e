"""When accounts and keys expire whose clients are logged in: one timer for all of them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from pbauth._time import wallTime

#: The longest wait, in seconds: the wall clock may be set, and timers do not go by it.
LONGEST_WAIT = 3600.0


class Expiries:
    """
    Call a function for each name at its moment.

    Args:
        reactor: returns what provides `IReactorTime`; called when a moment is set.
        expire: is called with the name whose moment has come.
    """

    def __init__(self, reactor: Callable[[], Any], expire: Callable[[str], object]) -> None:
        self._reactor = reactor
        self._expire = expire
        self._moments: dict[str, float] = {}
        # Of these, what does not stand in `_moments` any more is void.
        self._heap: list[tuple[float, str]] = []
        self._timer: Any = None
        self._timerAt = 0.0

    def __len__(self) -> int:
        """Return how many names have a moment."""
        return len(self._moments)

    def set(self, name: str, moment: float | None) -> None:
        """
        Set the moment of a name, instead of an earlier one.

        Args:
            name: of an identity.
            moment: in seconds since 1970; `None`: there is none.
        """
        if moment is None:
            self._moments.pop(name, None)
            if not self._moments:
                self._stop()
            return
        if self._moments.get(name) == moment:
            return
        self._moments[name] = moment
        heappush(self._heap, (moment, name))
        self._start()

    def get(self, name: str) -> float | None:
        """Return the moment of a name; `None`: there is none."""
        return self._moments.get(name)

    def _start(self) -> None:
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        if not self._heap:
            self._stop()
            return
        reactor = self._reactor()
        now = wallTime(reactor)
        wait = min(max(self._heap[0][0] - now, 0.0), LONGEST_WAIT)
        at = now + wait
        if self._timer is not None:
            if self._timerAt <= at:
                return
            self._timer.cancel()
        self._timerAt = at
        self._timer = reactor.callLater(wait, self._due)

    def _stop(self) -> None:
        self._heap.clear()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _due(self) -> None:
        self._timer = None
        now = wallTime(self._reactor())
        due = set()
        while self._heap and self._heap[0][0] <= now:
            moment, name = heappop(self._heap)
            if self._moments.get(name) == moment:
                del self._moments[name]
                due.add(name)
        for name in sorted(due):
            self._expire(name)
        self._start()
