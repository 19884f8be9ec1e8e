"""
How many connections there may be on which nobody has logged in, and how long.

New ones are refused where there are too many; near that, by chance, so that a flood does not keep
out everybody else, and a network that has to wait is not admitted at all.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable
from math import ceil
from typing import Any

from attrs import define

from pbauth._arguments import checkType
from pbauth._time import monotonic
from pbauth.interfaces import Reactor
from pbauth.login.checks import Check, ChecksUnderWay
from pbauth.login.policy import Policy
from pbauth.login.throttle import Throttle, ThrottleState
from pbauth.wire.calllimits import CallLimits

_RANDOM = secrets.SystemRandom()


@define(eq=False)
class UnauthenticatedConnection:
    """
    A connection on which nobody has logged in yet.

    Attributes:
        deadline: when somebody has to.
        drop: closes it; `None` once somebody has logged in, or it was closed.
    """

    deadline: float
    drop: Callable[[], None] | None

    @property
    def gone(self) -> bool:
        """Return whether somebody has logged in, or it was closed."""
        return self.drop is None


class UnauthenticatedConnections:
    """
    Counts the connections on which nobody has logged in yet, and drops those that take too long.

    Args:
        most: how many there may be.
        graceTime: seconds until they have to be logged in.
        reactor: provides `IReactorTime`.
        random: returns a number from 0 to 1.
    """

    #: Near the most that there may be, this part of it, some new ones are refused by chance, so
    #: that a flood does not keep out everybody else.
    NEAR = 0.9
    #: From this part of it on, not everybody should get one of the places that are left.
    CROWDED = 0.5
    #: From this part on, not even everybody who may be known.
    PACKED = 0.75

    def __init__(
        self,
        most: int,
        graceTime: float,
        reactor: Reactor,
        random: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self._most = most
        self._graceTime = graceTime
        self._reactor = reactor
        self._random = random
        # All have the same time, so they run out of it in the order in which they came.
        self._queue: deque[UnauthenticatedConnection] = deque()
        self._count = 0
        self._timer: Any = None

    def __len__(self) -> int:
        return self._count

    def isFull(self, part: float) -> bool:
        """
        Return whether so many of the places are taken.

        Args:
            part: of all, from 0 to 1.
        """
        return self._count >= self._most * part

    def admits(self) -> bool:
        """Return whether one more connection is admitted."""
        start = self._most * self.NEAR
        if self._count < start:
            return True
        return self._random() > (self._count - start) / max(self._most - start, 1e-9)

    def add(self, drop: Callable[[], None]) -> UnauthenticatedConnection:
        """
        Add a connection.

        Args:
            drop: closes it; called when its time is up.

        Returns:
            What to give to `remove`.
        """
        connection = UnauthenticatedConnection(self._reactor.seconds() + self._graceTime, drop)
        self._queue.append(connection)
        self._count += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(self._graceTime, self._timeIsUp)
        return connection

    def remove(self, connection: UnauthenticatedConnection) -> None:
        """Remove a connection: somebody has logged in, or it was closed. Twice is no error."""
        if connection.gone:
            return
        connection.drop = None
        self._count -= 1
        if not self._count:
            self._queue.clear()
            self._timer.cancel()
            self._timer = None
        while self._queue and self._queue[0].gone:
            self._queue.popleft()

    def _timeIsUp(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        late = []
        while self._queue and (self._queue[0].gone or self._queue[0].deadline <= now):
            late.append(self._queue.popleft())
        if self._queue:
            self._timer = self._reactor.callLater(self._queue[0].deadline - now, self._timeIsUp)
        for connection in late:
            drop, connection.drop = connection.drop, None
            if drop is not None:
                self._count -= 1
                drop()


class ConnectionLimits:
    """
    What all ports of a server share: the throttle, the checks under way, and the connections
    without a login.

    Attributes:
        unauthenticated: the connections on which nobody has logged in yet.
        checks: the proofs that are being checked.
        throttle: makes whoever fails wait; `None` where the policy has none.
        now: returns the time for intervals, in seconds.
        calls: how much each client may ask for after its login; `None` where the policy does not
            say.
        refused: how often clients asked for more than they may after their login, by the name of
            the limit in `Policy`.
        connections: all that are open, each an `pbauth.login.attempts.Attempts`.

    Args:
        policy: limits and switches.
        reactor: provides `IReactorTime`.
    """

    def __init__(self, policy: Policy, reactor: Reactor) -> None:
        checkType(Policy, policy, "policy")
        self.unauthenticated = UnauthenticatedConnections(
            policy.maxUnauthenticated, policy.graceTime, reactor
        )
        throttle = policy.throttle if isinstance(policy.throttle, Throttle) else Throttle()
        self.now = monotonic(reactor)
        self.throttle = ThrottleState(self.now, throttle) if policy.throttle else None
        self.checks = ChecksUnderWay(throttle.checksAtOnce, self.throttle)
        self.connections: set[Any] = set()
        self.refused: Counter[str] = Counter()
        self.calls: CallLimits | None = None
        if policy.limitsCalls:
            self.calls = CallLimits(
                policy.maxCallsPerSecond,
                policy.callBurst or max(1, ceil(policy.maxCallsPerSecond or 0)),
                policy.maxCallsAtOnce,
                policy.maxMessageBytes,
                self.now,
                self.refused,
            )

    def admits(self, network: str) -> bool:
        """
        Return whether one more connection is admitted. A network that has to wait takes none of
        the last places from others: of the second half, or of the last quarter if anybody has
        logged in from there before, who need not wait.

        Args:
            network: that it comes from.
        """
        throttle, places = self.throttle, self.unauthenticated
        if throttle is not None and places.isFull(places.CROWDED):
            part = places.PACKED if throttle.isKnown(network) else places.CROWDED
            if places.isFull(part) and throttle.waitOfNetwork(network):
                return False
        return places.admits()

    async def beginCheck(self, network: str, name: str, checkWait: Callable[[], None]) -> Check:
        """
        Wait until it is the turn of a check that takes time, and count it as a failure from then
        on, until it is ended.

        Args:
            network: that the login comes from.
            name: that it claims.
            checkWait: raises an error if the login is not to be checked any more; called after each
                wait.

        Returns:
            The check, to be ended.
        """
        while (end := self.checks.busy(network, name)) is not None:
            await end.wait()
            checkWait()
        return self.checks.begin(network, name)

    def wait(self, network: str, name: str) -> float:
        """Return what `Throttle.wait` does."""
        return 0.0 if self.throttle is None else self.throttle.wait(network, name)

    def failed(self, network: str, name: str) -> None:
        """Tell the throttle that a login failed."""
        if self.throttle is not None:
            self.throttle.failed(network, name)

    def misbehaved(self, network: str) -> None:
        """Tell the throttle that a connection did not log in in time, or broke the protocol."""
        if self.throttle is not None:
            self.throttle.misbehaved(network)

    def succeeded(self, network: str, name: str) -> None:
        """Tell the throttle that a login succeeded."""
        if self.throttle is not None:
            self.throttle.succeeded(network, name)
