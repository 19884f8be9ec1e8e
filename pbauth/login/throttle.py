"""
Who may try, and how often: what a server does about those who have not logged in.

`Throttle` slows down whoever fails, in the manner of OpenSSH's PerSourcePenalties: each failure is
a penalty of some seconds, for the network that it came from and for the name that was claimed.
Penalties add up and decay; above what is free, the network, or the name, has to wait.
`Strangers` counts the connections that are not logged in yet, refuses new ones where there are too
many, and drops those that take too long.  `Guard` puts the two together: where there are many, who
has to wait does not get in at all.  Time comes from a clock that is handed in.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address

from pbauth.login.policy import Policy

#: Seconds of penalty for a failed login. It decays by one second each second, so that
#: five failures a minute are free.
FAILURE = 12.0
#: For a connection that did not log in in time, or broke the protocol.
NUISANCE = 24.0
#: The penalty up to which nobody has to wait.
FREE = 60.0
#: The longest that anybody has to wait, in seconds.
LONGEST_WAIT = 600.0
#: How many networks, names, and pairs of them are remembered.
MOST_REMEMBERED = 65_536

_RANDOM = secrets.SystemRandom()

# Above what is free, each failure costs twice as much as the one before; that is forgotten after
# this many seconds without one.
_MEMORY = 600.0


@define
class _Penalty:
    """
    Attributes:
        seconds: of penalty, at this time.
        at: the time.
        step: what the next failure costs, in failures.
    """

    seconds: float
    at: float
    step: float = 1.0


class Penalties:
    """
    The penalties of networks, or of names; those that failed last.

    Args:
        now: gives the time in seconds.
        most: how many are remembered; the ones that failed longest ago are forgotten first.
    """

    def __init__(self, now: Callable[[], float], most: int = MOST_REMEMBERED) -> None:
        self._now = now
        self._most = most
        self._penalties: OrderedDict[Hashable, _Penalty] = OrderedDict()

    def __len__(self) -> int:
        return len(self._penalties)

    def add(self, who: Hashable, seconds: float) -> None:
        """
        Somebody failed.

        Args:
            who: failed.
            seconds: of penalty for that.
        """
        now = self._now()
        penalty = self._penalties.pop(who, None)
        if penalty is None or now - penalty.at > _MEMORY:
            penalty = _Penalty(0.0, now)
        else:
            penalty.seconds = max(0.0, penalty.seconds - (now - penalty.at))
            penalty.at = now
        penalty.seconds = min(penalty.seconds + seconds * penalty.step, FREE + LONGEST_WAIT)
        if penalty.seconds > FREE:
            penalty.step *= 2
        self._penalties[who] = penalty
        if len(self._penalties) > self._most:
            self._penalties.popitem(last=False)

    def wait(self, who: Hashable) -> float:
        """
        Args:
            who: wants to try.

        Returns:
            How many seconds they have to wait; 0: not at all.
        """
        penalty = self._penalties.get(who)
        if penalty is None:
            return 0.0
        return max(0.0, penalty.seconds - (self._now() - penalty.at) - FREE)


class Throttle:
    """
    Slows down whoever fails.

    A flood of failures for one name makes that name wait, wherever it comes from next; but not
    where it has logged in before.

    Args:
        now: gives the time in seconds.
        most: how many networks, names, and pairs of them are remembered.
    """

    def __init__(self, now: Callable[[], float], most: int = MOST_REMEMBERED) -> None:
        self._networks = Penalties(now, most)
        self._names = Penalties(now, most)
        self._most = most
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, network: str, name: str) -> float:
        """
        Args:
            network: that somebody comes from.
            name: that they claim.

        Returns:
            How many seconds they have to wait; 0: not at all.
        """
        wait = self._networks.wait(network)
        if (network, name) not in self._welcome:
            wait = max(wait, self._names.wait(name))
        return wait

    def waitOfNetwork(self, network: str) -> float:
        """
        Args:
            network: that somebody comes from.

        Returns:
            How many seconds they have to wait, whoever they are; 0: not at all.
        """
        return self._networks.wait(network)

    def failed(self, network: str, name: str) -> None:
        """A login failed."""
        self._networks.add(network, FAILURE)
        self._names.add(name, FAILURE)

    def misbehaved(self, network: str) -> None:
        """A connection did not log in in time, or broke the protocol."""
        self._networks.add(network, NUISANCE)

    def succeeded(self, network: str, name: str) -> None:
        """A login succeeded."""
        pair = (network, name)
        self._welcome.pop(pair, None)
        self._welcome[pair] = None
        if len(self._welcome) > self._most:
            self._welcome.popitem(last=False)


def networkOf(address: Any) -> str:
    """
    Args:
        address: an `IAddress`.

    Returns:
        The network that is held responsible: an IPv4 address, the /64 of an IPv6 address, or, for
        anything else, this machine.
    """
    if isinstance(address, IPv4Address):
        return address.host
    if isinstance(address, IPv6Address):
        found = ipaddress.ip_address(address.host.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None)
        if mapped is not None:
            return str(mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return "this machine"


@define(eq=False)
class Stranger:
    """
    A connection that is not logged in.

    Attributes:
        deadline: when it has to be.
        drop: ends it.
        gone: it is logged in, or closed.
    """

    deadline: float
    drop: Callable[[], None]
    gone: bool = field(default=False)


class Strangers:
    """
    The connections that are not logged in yet.

    Args:
        most: how many there may be.
        graceTime: seconds until they have to be logged in.
        reactor: provides `IReactorTime`.
        random: gives a number from 0 to 1.
    """

    #: Near the most that there may be, this part of it, some new ones are refused by chance, so
    #: that a flood does not keep out everybody else.
    NEAR = 0.9
    #: From this part of it on, not everybody should get one of the places that are left.
    CROWDED = 0.5

    def __init__(
        self,
        most: int,
        graceTime: float,
        reactor: Any,
        random: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self._most = most
        self._graceTime = graceTime
        self._reactor = reactor
        self._random = random
        # All have the same time, so they run out of it in the order in which they came.
        self._queue: deque[Stranger] = deque()
        self._count = 0
        self._timer: Any = None

    def __len__(self) -> int:
        return self._count

    @property
    def crowded(self) -> bool:
        """Whether the places are getting scarce."""
        return self._count >= self._most * self.CROWDED

    def mayCome(self) -> bool:
        """Say whether one more connection may come."""
        start = self._most * self.NEAR
        if self._count < start:
            return True
        return self._random() > (self._count - start) / max(self._most - start, 1e-9)

    def came(self, drop: Callable[[], None]) -> Stranger:
        """
        A connection came.

        Args:
            drop: ends it.

        Returns:
            What to give to `left`.
        """
        stranger = Stranger(self._reactor.seconds() + self._graceTime, drop)
        self._queue.append(stranger)
        self._count += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(self._graceTime, self._timeIsUp)
        return stranger

    def left(self, stranger: Stranger) -> None:
        """It logged in, or was closed. Not more than once is noticed."""
        if stranger.gone:
            return
        stranger.gone = True
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
        for stranger in late:
            if not stranger.gone:
                stranger.gone = True
                self._count -= 1
                stranger.drop()


class Guard:
    """
    What all ports of a server know together of those who have not logged in.

    Attributes:
        strangers: the connections that are not logged in yet.
        throttle: slows down whoever fails; `None` where the policy does not want it.

    Args:
        policy: limits and switches.
        reactor: provides `IReactorTime`.
    """

    def __init__(self, policy: Policy, reactor: Any) -> None:
        self.strangers = Strangers(policy.maxUnauthenticated, policy.graceTime, reactor)
        self.throttle = Throttle(reactor.seconds) if policy.throttle else None

    def mayCome(self, network: str) -> bool:
        """
        Say whether one more connection may come. Who has to wait can't log in now, and may not
        take the places of those who can.

        Args:
            network: that it comes from.
        """
        if self.throttle is not None and self.strangers.crowded:
            return not self.throttle.waitOfNetwork(network) and self.strangers.mayCome()
        return self.strangers.mayCome()

    def wait(self, network: str, name: str) -> float:
        """As `Throttle.wait`."""
        return 0.0 if self.throttle is None else self.throttle.wait(network, name)

    def failed(self, network: str, name: str) -> None:
        """As `Throttle.failed`."""
        if self.throttle is not None:
            self.throttle.failed(network, name)

    def misbehaved(self, network: str) -> None:
        """As `Throttle.misbehaved`."""
        if self.throttle is not None:
            self.throttle.misbehaved(network)

    def succeeded(self, network: str, name: str) -> None:
        """As `Throttle.succeeded`."""
        if self.throttle is not None:
            self.throttle.succeeded(network, name)
