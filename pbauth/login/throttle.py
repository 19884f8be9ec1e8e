"""
The throttle: whoever fails to log in has to wait, in the manner of OpenSSH's PerSourcePenalties.

Each failure is a penalty of some seconds, for the network that it came from and for the name that
was claimed.  Penalties add up and decay; above what is free, the network, or the name, has to wait.
Where a name has logged in before, from the same network, only its own failures from there count.
Time comes from a clock that is handed in.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sized
from typing import Any
from unicodedata import normalize

from attrs import Attribute, define, field, frozen
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address

from pbauth._arguments import isCount, isPositive, listed
from pbauth.names import LONGEST

#: The seconds of penalty up to which nobody has to wait. Penalties decay by one second each second.
FREE = 60.0
#: How many networks, names, and pairs of them are remembered.
MOST_REMEMBERED = 65_536

# Above what is free, each failure costs twice as much as the one before; that is forgotten after
# this many seconds without one.
_MEMORY = 600.0

# So many are looked at for one that need not wait.
_PASSED_OVER = 8


# Where clients of IPv4 are that reach a server of IPv6 by a translator (RFC 6052).
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


def _ipv4In(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def _asNetworks(given: Iterable[str]) -> tuple[str, ...]:
    found = []
    for each in listed(given, "networks", "exempt"):
        try:
            network = ipaddress.ip_network(each)
        except (ValueError, TypeError):
            raise ValueError(
                f"{each!r} is not an address or a network: 192.0.2.7, 192.0.2.0/24, 2001:db8::/48."
            ) from None
        if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
            address = _ipv4In(network.network_address)
            if address is not None:
                network = ipaddress.ip_network((int(address), network.prefixlen - 96))
        if network.version == 6 and network.prefixlen > 64:
            raise ValueError(
                f"{each} is part of a /64, which the throttle treats as one: use "
                f"{network.supernet(new_prefix=64)}."
            )
        found.append(str(network))
    return tuple(found)


def _wholeNumber(instance: Throttle, attribute: Attribute[int], value: int) -> None:
    if not isCount(value):
        raise ValueError(f"{attribute.name} must be a whole number greater than 0, not {value!r}.")


def _positive(instance: Throttle, attribute: Attribute[float], value: float) -> None:
    if not isPositive(value):
        raise ValueError(
            f"{attribute.name} must be a number of seconds greater than 0, not {value!r}."
        )


@frozen(kw_only=True)
class Throttle:
    """
    How much a server slows down whoever fails to log in; for `Policy`.

    Attributes:
        freeFailures: the failures a minute that are free, for each network and for each name. A
            connection that does not log in in time, or breaks the protocol, counts as two.
        longestWait: the longest that anybody has to wait, in seconds.
        exempt: addresses and networks that never have to wait, such as one behind which an office
            is, or the machine that monitors this server. Names that are guessed at from there do.
        checksAtOnce: how many passwords of one network are checked elsewhere at once (`PLAIN`);
            others wait for their turn.
    """

    freeFailures: int = field(default=5, validator=_wholeNumber)
    longestWait: float = field(default=600.0, validator=_positive)
    exempt: tuple[str, ...] = field(default=(), converter=_asNetworks)
    checksAtOnce: int = field(default=4, validator=_wholeNumber)

    @classmethod
    def fromText(cls, text: str) -> Throttle:
        """
        Read what an operator wrote.

        Args:
            text: ``free=20,longest=300,exempt=192.0.2.0/24,exempt=2001:db8::/48``, or parts of it.

        Returns:
            The throttle.

        Raises:
            ValueError: it is not of that form.
        """
        fields: dict[str, Any] = {}
        for part in text.split(","):
            key, _, value = part.strip().partition("=")
            try:
                if key == "free":
                    fields["freeFailures"] = int(value)
                elif key == "longest":
                    fields["longestWait"] = float(value)
                elif key == "checks":
                    fields["checksAtOnce"] = int(value)
                elif key == "exempt":
                    fields["exempt"] = [*fields.get("exempt", ()), value]
                else:
                    raise ValueError(part)
            except ValueError:
                raise ValueError(
                    f"{part.strip()!r} is none of free=FAILURES, longest=SECONDS, checks=PASSWORDS "
                    "and exempt=NETWORK."
                ) from None
        return cls(**fields)


@define
class _Penalty:
    """
    How much one network or name has to pay, which decreases with time.

    Attributes:
        seconds: of penalty, at the time `at`.
        at: the time, in seconds.
        step: what the next failure costs, in failures.
    """

    seconds: float
    at: float
    step: float = 1.0


class Penalties:
    """
    The penalties of networks, or of names; those that failed last.

    Args:
        now: returns the time in seconds.
        most: how many are remembered; of those who need not wait, the ones that failed longest ago
            are forgotten first.
        longestWait: the longest that anybody has to wait, in seconds.
    """

    def __init__(
        self,
        now: Callable[[], float],
        most: int = MOST_REMEMBERED,
        longestWait: float = 600.0,
    ) -> None:
        self._now = now
        self._most = most
        self._longestWait = longestWait
        self._penalties: OrderedDict[Hashable, _Penalty] = OrderedDict()

    def __len__(self) -> int:
        return len(self._penalties)

    @property
    def remembered(self) -> Sized:
        """Return those that have a penalty, or had one."""
        return self._penalties

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
        penalty.seconds = min(penalty.seconds + seconds * penalty.step, FREE + self._longestWait)
        if penalty.seconds > FREE:
            penalty.step *= 2
        self._penalties[who] = penalty
        if len(self._penalties) > self._most:
            self._forgetOne()

    def _forgetOne(self) -> None:
        # Whoever waits is passed over, so that it takes more than one failure of each of others to
        # have somebody forgotten.
        for _ in range(_PASSED_OVER):
            oldest = next(iter(self._penalties))
            if not self.wait(oldest):
                break
            self._penalties.move_to_end(oldest)
        self._penalties.popitem(last=False)

    def wait(self, who: Hashable) -> float:
        """
        Return how long somebody has to wait.

        Args:
            who: a network, or a name.

        Returns:
            Seconds; 0: not at all.
        """
        if who not in self._penalties:
            return 0.0
        return max(0.0, self.of(who) - FREE)

    def of(self, who: Hashable) -> float:
        """
        Return the penalty of somebody.

        Args:
            who: a network, or a name.

        Returns:
            Seconds; not under 0.
        """
        penalty = self._penalties.get(who)
        if penalty is None:
            return 0.0
        return max(0.0, penalty.seconds - (self._now() - penalty.at))


#: What whoever says nothing gets.
_DEFAULT = Throttle()


class ThrottleState:
    """
    Who has failed to log in, and has to wait.

    A flood of failures for one name makes that name wait, and one from one network makes that
    network wait; but not a name where it has logged in before: there only its own failures count.
    So neither guesses from elsewhere nor one broken program behind the same address keep anybody
    out who is at home there.

    A network is a text that `networkOf` gives; the empty one stands for one that is not known, and
    never has to wait.

    Args:
        now: returns the time in seconds.
        throttle: how much whoever fails is slowed down.
        most: how many networks, names, and pairs of them are remembered.
    """

    def __init__(
        self,
        now: Callable[[], float],
        throttle: Throttle = _DEFAULT,
        most: int = MOST_REMEMBERED,
    ) -> None:
        self._cost = FREE / throttle.freeFailures
        self._networks = Penalties(now, most, throttle.longestWait)
        self._names = Penalties(now, most, throttle.longestWait)
        # Of names where they have logged in before.
        self._pairs = Penalties(now, most, throttle.longestWait)
        # When all are empty nobody has to wait, which is so most of the time.
        self._penalized = [each.remembered for each in (self._networks, self._names, self._pairs)]
        self._most = most
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._knownNetworks: OrderedDict[str, None] = OrderedDict()
        self._exempt = [ipaddress.ip_network(each) for each in throttle.exempt]

    def _concerned(self, network: str, name: str) -> list[tuple[Penalties, Hashable]]:
        who, pair = _keys(network, name)
        if pair in self._known:
            return [(self._pairs, pair)]
        # An exempt network has none.
        return [(self._networks, network), (self._names, who)]

    def wait(self, network: str, name: str) -> float:
        """
        Return how long a login has to wait.

        Args:
            network: that it comes from.
            name: that it claims.

        Returns:
            Seconds; 0: not at all.
        """
        if not any(self._penalized):
            return 0.0
        # The same work, whether it is known here or not.
        who, pair = _keys(network, name)
        if pair in self._known:
            return self._pairs.wait(pair)
        return max(self._networks.wait(network), self._names.wait(who))

    def busy(self, network: str, name: str, underWay: Callable[[Hashable], int]) -> Hashable | None:
        """
        Return whose checks a login has to wait for, so that nobody has more of them under way than
        may fail.

        Args:
            network: that it comes from.
            name: that it claims.
            underWay: returns the number of checks under way, of each of `responsible`.

        Returns:
            One of `responsible`; `None`: it need not wait.
        """
        for penalties, who in self._concerned(network, name):
            if penalties.of(who) + underWay(who) * self._cost > FREE:
                return who
        return None

    def waitOfNetwork(self, network: str) -> float:
        """
        Return how long logins from a network have to wait, unless their names are known there.

        Args:
            network: the network.

        Returns:
            Seconds; 0: not at all.
        """
        return self._networks.wait(network)

    def failed(self, network: str, name: str) -> None:
        """Add the penalties for a failed login."""
        if not self._isExempt(network):
            self._networks.add(network, self._cost)
        who, pair = _keys(network, name)
        self._names.add(who, self._cost)
        if pair in self._known:
            self._pairs.add(pair, self._cost)

    def misbehaved(self, network: str) -> None:
        """Add the penalty for a connection that did not log in in time, or broke the protocol."""
        if not self._isExempt(network):
            self._networks.add(network, 2 * self._cost)

    def succeeded(self, network: str, name: str) -> None:
        """Remember that this name has logged in from this network."""
        _remember(self._known, _digest(f"{network}\0{_folded(name)}"), self._most)
        _remember(self._knownNetworks, network, self._most)

    def isKnown(self, network: str) -> bool:
        """
        Return whether anybody has logged in from a network before.

        Args:
            network: the network.
        """
        return network in self._knownNetworks

    def _isExempt(self, network: str) -> bool:
        if not network:
            return True
        if not self._exempt:
            return False
        try:
            found: Any = ipaddress.ip_network(network)
        except ValueError:
            # This machine.
            return False
        return any(each.version == found.version and found.subnet_of(each) for each in self._exempt)


def _remember(known: OrderedDict[Any, None], what: Hashable, most: int) -> None:
    known.pop(what, None)
    known[what] = None
    if len(known) > most:
        known.popitem(last=False)


def responsible(network: str, name: str) -> tuple[Hashable, ...]:
    """
    Return whom a check counts for while it is under way (see `ThrottleState.busy`).

    Args:
        network: that the login comes from.
        name: that it claims.
    """
    return network, *_keys(network, name)


def _keys(network: str, name: str) -> tuple[bytes, bytes]:
    """Return what is kept of a name, and of the pair of network and name."""
    folded = _folded(name)
    return _digest(folded), _digest(f"{network}\0{folded}")


def _folded(name: str) -> str:
    """
    Return what names have in common that wait together. Whoever checks a password elsewhere may
    take ``ALICE`` for ``alice``: no name can be guessed at more often by writing it in more ways.
    """
    if len(name) > LONGEST:
        return name
    return (name.lower() if name.isascii() else normalize("NFKC", name).casefold()).strip()


def _digest(text: str) -> bytes:
    """Return what is kept of a text that anybody may choose, however long it is."""
    encoded = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def networkOf(address: Any, uid: int | None = None) -> str:
    """
    Return the network that is held responsible for what comes from an address.

    Args:
        address: an `IAddress`.
        uid: of the user at the other end of a UNIX socket; `None`: not known.

    Returns:
        An IPv4 address, the /64 of an IPv6 address, the name of a host, or, for anything else, this
        machine: of that user.
    """
    if isinstance(address, IPv4Address):
        return address.host
    if isinstance(address, IPv6Address):
        found = ipaddress.ip_address(address.host.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address):
            within = _ipv4In(found)
            if within is not None:
                return str(within)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    if isinstance(address, HostnameAddress):
        # All of which a load balancer does not say where they are.
        return address.hostname.decode("ascii", "replace")
    return "this machine" if uid is None else f"this machine, uid {uid}"
