"""
The throttle: whoever fails to log in has to wait, in the manner of OpenSSH's PerSourcePenalties.

Each failure is a penalty of some seconds, for the network that it came from and for the name that
was claimed.  Penalties add up and decay; above what is free, the network, or the name, has to wait.
Time comes from a clock that is handed in.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address

#: Seconds of penalty for a failed login. It decays by one second each second, so that
#: five failures a minute are free.
FAILURE = 12.0
#: Seconds of penalty for a connection that did not log in in time, or broke the protocol.
MISBEHAVIOUR = 24.0
#: The penalty up to which nobody has to wait.
FREE = 60.0
#: The longest that anybody has to wait, in seconds.
LONGEST_WAIT = 600.0
#: How many networks, names, and pairs of them are remembered.
MOST_REMEMBERED = 65_536

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
        Add a penalty.

        Args:
            who: a network, or a name.
            seconds: of penalty.
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
        Return how long somebody has to wait.

        Args:
            who: a network, or a name.

        Returns:
            Seconds; 0: not at all.
        """
        penalty = self._penalties.get(who)
        if penalty is None:
            return 0.0
        return max(0.0, penalty.seconds - (self._now() - penalty.at) - FREE)


class Throttle:
    """
    Makes whoever fails wait.

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
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def wait(self, network: str, name: str) -> float:
        """
        Return how long a login has to wait.

        Args:
            network: that it comes from.
            name: that it claims.

        Returns:
            Seconds; 0: not at all.
        """
        wait = self._networks.wait(network)
        if _digest(network, name) not in self._known:
            wait = max(wait, self._names.wait(_digest(name)))
        return wait

    def waitOfNetwork(self, network: str) -> float:
        """
        Return how long every login from a network has to wait.

        Args:
            network: the network.

        Returns:
            Seconds; 0: not at all.
        """
        return self._networks.wait(network)

    def failed(self, network: str, name: str) -> None:
        """Add the penalties for a failed login."""
        self._networks.add(network, FAILURE)
        self._names.add(_digest(name), FAILURE)

    def misbehaved(self, network: str) -> None:
        """Add the penalty for a connection that did not log in in time, or broke the protocol."""
        self._networks.add(network, MISBEHAVIOUR)

    def succeeded(self, network: str, name: str) -> None:
        """Remember that this name has logged in from this network."""
        pair = _digest(network, name)
        self._known.pop(pair, None)
        self._known[pair] = None
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def _digest(*texts: str) -> bytes:
    """Return what is kept of texts that anybody may choose, however long they are."""
    encoded = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def networkOf(address: Any) -> str:
    """
    Return the network that is held responsible for what comes from an address.

    Args:
        address: an `IAddress`.

    Returns:
        An IPv4 address, the /64 of an IPv6 address, or, for
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
