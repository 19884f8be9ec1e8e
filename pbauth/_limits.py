"""
What narrows a session: limits, and what is left of several of them.

A limit that is not set allows everything.  Limits are only ever combined by `Limits.narrowed`,
which gives what all of them allow: so nothing that is combined allows more than each part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from attrs import Attribute, evolve, field, fields, frozen

from pbauth._arguments import listed
from pbauth._moments import LAST, atSeconds, checkMoment, secondsOf, toText
from pbauth.names import checkName

Network = IPv4Network | IPv6Network


def _moment(value: Any) -> datetime | None:
    moment = checkMoment(value, "until")
    return None if moment is None else moment.replace(microsecond=0)


def _names(value: Any, limit: str) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset(checkName(each, f"name in {limit}") for each in listed(value, "names", limit))


def _services(value: Any) -> frozenset[str] | None:
    return _names(value, "services")


def _perspectives(value: Any) -> frozenset[str] | None:
    return _names(value, "perspectives")


def _methods(value: Any) -> frozenset[str] | None:
    return _names(value, "methods")


def _networks(value: Any) -> frozenset[Network] | None:
    if value is None:
        return None
    if not isinstance(value, frozenset):
        value = listed(value, "networks", "networks")
    return frozenset(map(_network, value))


def _network(value: Any) -> Network:
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    if not isinstance(value, str):
        raise TypeError(f"A network is a str such as '10.0.0.0/8', not {type(value).__name__}.")
    try:
        return ip_network(value)
    except ValueError as mistake:
        raise ValueError(f"{mistake}. Write a network as 10.0.0.0/8.") from None


def _wholeOrNone(instance: Limits, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (type(value) is not int or not 1 <= value < 2**31):
        raise ValueError(f"{attribute.name} must be a whole number over 0, or None, not {value!r}.")


def _flag(instance: Limits, attribute: Attribute[Any], value: Any) -> None:
    if type(value) is not bool:
        raise TypeError(f"{attribute.name} must be a bool, not {type(value).__name__}.")


@frozen(kw_only=True)
class Limits:
    """
    What a session may do, and for how long; `None` is no limit.

    Attributes:
        until: from when on it may do nothing, an aware `datetime`; fractions of a second are cut.
        services: the names of the services that it may attach to.
        perspectives: the names of their perspectives.
        methods: the names of the methods of the perspective that it may call.
        networks: where its client may be; texts like ``10.0.0.0/8`` become networks.
        sessions: how many sessions there may be at once.
        final: nobody may narrow this further.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value makes no sense.
        InvalidName: a name breaks the rule of `pbauth.names`.
    """

    until: datetime | None = field(default=None, converter=_moment)
    services: frozenset[str] | None = field(default=None, converter=_services)
    perspectives: frozenset[str] | None = field(default=None, converter=_perspectives)
    methods: frozenset[str] | None = field(default=None, converter=_methods)
    networks: frozenset[Network] | None = field(default=None, converter=_networks)
    sessions: int | None = field(default=None, validator=_wholeOrNone)
    final: bool = field(default=False, validator=_flag)

    def narrowed(self, other: Limits) -> Limits:
        """
        Return what both allow.

        Args:
            other: further limits.
        """
        return evolve(
            self,
            until=_least(self.until, other.until),
            services=_both(self.services, other.services),
            perspectives=_both(self.perspectives, other.perspectives),
            methods=_both(self.methods, other.methods),
            sessions=_least(self.sessions, other.sessions),
            final=self.final or other.final,
            networks=_overlap(self.networks, other.networks),
        )

    def allowsKey(self, service: str, perspective: str) -> bool:
        """Return whether a perspective of a service may be attached to."""
        return (self.services is None or service in self.services) and (
            self.perspectives is None or perspective in self.perspectives
        )

    def allowsHost(self, host: str | None) -> bool:
        """
        Return whether a client may be at this address.

        Args:
            host: an IP address; `None`: it has none, and is in no network.
        """
        if self.networks is None:
            return True
        try:
            address = ip_address(host or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any(
            each in network for network in self.networks for each in (address, mapped) if each
        )

    def describe(self) -> dict[str, Any]:
        """Return the limits that are set as plain values, by name, for people and programs."""
        plain = self.toPlain()
        if self.until is not None:
            plain["until"] = toText(self.until)
        return plain

    def toPlain(self) -> dict[str, Any]:
        """Return the limits that are set as values that JSON has, by name."""
        plain: dict[str, Any] = {}
        for name in NAMES:
            value = getattr(self, name)
            if isinstance(value, datetime):
                plain[name] = int(secondsOf(value))
            elif isinstance(value, frozenset):
                plain[name] = sorted(map(str, value))
            elif value is not None and value is not False:
                plain[name] = value
        return plain

    @classmethod
    def fromPlain(cls, plain: dict[str, Any]) -> Limits:
        """
        Read what `toPlain` wrote, or another program.

        Args:
            plain: values by name.

        Raises:
            ValueError: a limit is not known, or has a value that it can't have.
        """
        unknown = plain.keys() - NAMES
        if unknown:
            raise ValueError("There is a limit that this version does not know.")
        values = dict(plain)
        for name in ("services", "perspectives", "methods", "networks"):
            value = values.get(name)
            if name in values and (
                type(value) is not list or not all(type(each) is str for each in value)
            ):
                raise ValueError(f"{name} must be a list of texts.")
        for name, kind in (("sessions", int), ("final", bool), ("until", int)):
            if name in values and type(values[name]) is not kind:
                raise ValueError(f"{name} is of the wrong type.")
        if "until" in values:
            if not 0 <= values["until"] <= LAST // 1_000_000:
                raise ValueError("until is not a moment.")
            values["until"] = atSeconds(values["until"])
        try:
            return cls(**values)
        except TypeError as mistake:
            raise ValueError(str(mistake)) from None


#: The names of all limits.
NAMES = tuple(each.name for each in fields(Limits))

#: No limit at all.
UNLIMITED = Limits()


def _least(one: Any, other: Any) -> Any:
    found = [each for each in (one, other) if each is not None]
    return min(found) if found else None


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _overlap(
    one: frozenset[Network] | None, other: frozenset[Network] | None
) -> frozenset[Network] | None:
    if one is None or other is None:
        return other if one is None else one
    # Of two networks, one is in the other, or they have nothing in common.
    inside = [each for each in one if any(_isIn(each, outer) for outer in other)]
    return frozenset([*inside, *(each for each in other if any(_isIn(each, o) for o in one))])


def _isIn(network: Network, outer: Network) -> bool:
    return network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]


def readJSON(data: bytes) -> dict[str, Any]:
    """
    Read one JSON object, strictly: UTF-8, and no name twice.

    Args:
        data: the text.

    Returns:
        Its values, by name.

    Raises:
        ValueError: it is nothing of that kind.
    """
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("This is nested too deeply.") from None
    if type(found) is not dict:
        raise ValueError("This is not an object.")
    return found


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError("A name stands there twice.")
        found[name] = value
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a value.")


def writeJSON(plain: dict[str, Any]) -> bytes:
    """Write one JSON object: in ASCII, without spaces, names sorted."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")
