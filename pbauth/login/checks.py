"""
The checks that are under way: proofs that somebody else looks at, which takes time (PAM, LDAP).

While nobody knows yet how a check ends, it counts as a failure: whoever sends a thousand guesses at
once has no more of them looked at than may fail.  Others wait for their turn; each network has few
checks under way, so that it leaves room for those of others.
"""

from __future__ import annotations

from collections.abc import Hashable

from pbauth._async import OneShot
from pbauth.login.throttle import ThrottleState, responsible


class ChecksUnderWay:
    """
    The checks that are under way on all ports of a server.

    Args:
        most: how many are under way at once for one network.
        throttle: knows who has failed already; `None` where the policy has none.
    """

    def __init__(self, most: int, throttle: ThrottleState | None) -> None:
        self._most = most
        self._throttle = throttle
        self._counts: dict[Hashable, int] = {}
        self._ends: dict[Hashable, OneShot] = {}

    def busy(self, network: str, name: str) -> OneShot | None:
        """
        Return whether a check has to wait for its turn.

        Args:
            network: that the login comes from.
            name: that it claims.

        Returns:
            Happens when it is time to ask again; `None`: it is its turn.
        """
        who: Hashable = None
        if self._count(network) >= self._most:
            who = network
        elif self._counts and self._throttle is not None:
            who = self._throttle.busy(network, name, self._count)
        if who is None:
            return None
        return self._ends.setdefault(who, OneShot())

    def begin(self, network: str, name: str) -> Check:
        """
        Count a check.

        Args:
            network: that the login comes from.
            name: that it claims.

        Returns:
            The check, to be ended.
        """
        whom = responsible(network, name)
        for who in whom:
            self._counts[who] = self._count(who) + 1
        return Check(self, whom)

    def _count(self, who: Hashable) -> int:
        return self._counts.get(who, 0)

    def end(self, whom: tuple[Hashable, ...]) -> None:
        """Stop counting a check, and tell those who wait for it; for `Check`."""
        ends = []
        for who in whom:
            left = self._counts.pop(who) - 1
            if left:
                self._counts[who] = left
            end = self._ends.pop(who, None)
            if end is not None:
                ends.append(end)
        for end in ends:
            end.fire()


class Check:
    """
    One check that is under way. `ChecksUnderWay.begin` makes it.
    """

    __slots__ = ("_checks", "_whom")

    def __init__(self, checks: ChecksUnderWay, whom: tuple[Hashable, ...]) -> None:
        self._checks = checks
        self._whom: tuple[Hashable, ...] = whom

    def end(self) -> None:
        """Stop counting it: the throttle knows how it ended. Only the first call counts."""
        whom, self._whom = self._whom, ()
        self._checks.end(whom)
