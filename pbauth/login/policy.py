"""What a server allows: every limit and every switch, as one value."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from attrs import Attribute, field, frozen

from pbauth._arguments import isCount, isPositive, listed
from pbauth.login.throttle import Throttle
from pbauth.mechanisms import MECHANISMS
from pbauth.mechanisms.channel import Channel
from pbauth.mechanisms.terms import Terms
from pbauth.mechanisms.voucher import MOST_LIFE
from pbauth.names import checkName


def _positive(instance: Policy, attribute: Attribute[Any], value: Any) -> None:
    if not isPositive(value):
        raise ValueError(f"{attribute.name} must be a number greater than 0, not {value!r}.")


def _positiveOrNone(instance: Policy, attribute: Attribute[Any], value: Any) -> None:
    if value is not None:
        _positive(instance, attribute, value)


def _whole(instance: Policy, attribute: Attribute[Any], value: Any) -> None:
    if not isCount(value):
        raise ValueError(f"{attribute.name} must be a whole number over 0, not {value!r}.")


def _wholeOrNone(instance: Policy, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not isCount(value):
        raise ValueError(f"{attribute.name} must be a whole number over 0, or None, not {value!r}.")


def _secondsOrNone(instance: Policy, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and value != 0:
        _positive(instance, attribute, value)


def _nameOrNone(instance: Policy, attribute: Attribute[str | None], value: str | None) -> None:
    if value is not None:
        checkName(value, attribute.name)


def _throttleOrSwitch(instance: Policy, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, (bool, Throttle)):
        raise TypeError(f"throttle must be a Throttle, True or False, not {type(value).__name__}.")


def _asLength(value: timedelta | float) -> timedelta:
    if not isinstance(value, timedelta):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                f"maxVoucherLife must be a timedelta or seconds, not {type(value).__name__}."
            )
        try:
            value = timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise ValueError(f"maxVoucherLife can't be {value!r} seconds.") from None
    if value <= timedelta(0):
        raise ValueError("maxVoucherLife must be longer than 0.")
    return value


#: What a policy may name.
LISTABLE = frozenset(name for mechanism in MECHANISMS for name in mechanism.listedAs)

# Of a client that speaks TLS 1.3, and shows no certificate or one.
_PLAIN_TLS = Channel(secure=True, channelBinding=b"")
_WITH_CERTIFICATE = Channel(secure=True, channelBinding=b"", peerPin="")


def defaultMechanisms(externalPasswords: bool = False) -> tuple[str, ...]:
    """
    Return the mechanisms that a server offers by default.

    Args:
        externalPasswords: passwords are checked by somebody else who has to see them.

    Returns:
        Their names: all that every client can use over TLS, for passwords before those for keys.
    """
    terms = Terms(externalPasswords=externalPasswords)
    offered = [each for each in MECHANISMS if each.offeredOn(_PLAIN_TLS, terms)]
    return tuple(each.name for each in sorted(offered, key=lambda each: each.usesKeys))


def _knownVersion(instance: Policy, attribute: Attribute[Any], value: str) -> None:
    if value not in ("1.2", "1.3"):
        raise ValueError(f"minimumTLS is '1.3' (the default) or '1.2', not {value!r}.")


def _asTuple(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(listed(value, "names", "mechanisms"))


def _knownMechanisms(instance: Policy, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    unknown = [name for name in value if name not in LISTABLE]
    if unknown:
        known = ", ".join(sorted(LISTABLE))
        raise ValueError(f"There is no mechanism {unknown[0]!r}. There are: {known}.")


@frozen(kw_only=True)
class Policy:
    """
    The limits and switches of a server; the defaults are the safe ones.

    Under a broker of stock Twisted, `maxUnauthenticatedBytes`, `maxUnauthenticated`,
    `maxReferences` and the limits of calls and messages can't be enforced; `AuthServerFactory` has
    pbauth's own.

    Attributes:
        mechanisms: names of the mechanisms to offer, strongest first.  Of these a connection is
            offered those that are safe on it.  Where there is a channel to bind to, SCRAM
            is always offered with channel binding.
        minimumTLS: the oldest version of TLS, ``"1.3"`` or ``"1.2"``. On a connection over an older
            one no mechanism is offered, since no login can be bound to it.
        legacyLogin: let clients of Twisted 1.x and of stock Twisted in, by `PB-MD5`.
        defaultService: the name of the service that clients of stock Twisted get, which can't
            name one.
        guest: the name of the identity that anonymous clients get, by the mechanism `ANONYMOUS`;
            `None`: there are none.
        graceTime: seconds from connection to a completed login; then the connection is dropped.
        maxAttempts: failed logins on one connection; then it is dropped.
        maxUnauthenticatedBytes: the most bytes that are read or buffered for a connection before
            its login.
        maxUnauthenticated: connections not yet logged in, in all; above it new ones are refused.
        throttle: slow down whoever fails often, by source address and by name: a `Throttle`;
            `True`: one with its defaults; `False`: nobody is slowed down.
        pingInterval: seconds within which a client that has logged in and is idle is asked
            whether it is still there; if it says nothing for as long again, it is dropped. 0 or
            `None`: it is never asked.
        maxReferences: references to the server's objects that a client may hold at once, and copies
            of `Cacheable` objects; a call that would give it more fails.
        vouchers: users may issue vouchers, and log in with them.
        maxVoucherLife: the longest time for which a voucher is issued, a `timedelta` or seconds.
        maxSessions: sessions of one identity at once, on all connections; guests count together.
        maxCallsPerSecond: calls on one connection, on average.
        callBurst: calls on one connection at once, after a pause; by default as many as in a
            second.
        maxCallsAtOnce: calls on one connection whose methods are not done.
        maxMessageBytes: bytes in one message; also of answers to calls of the server's.

    The last five are for clients that have logged in; `None`, the default, is no limit. Over a
    limit a call fails with `LimitExceeded`; at ten times the limit the connection is dropped.
    """

    mechanisms: tuple[str, ...] = field(
        factory=defaultMechanisms,
        converter=_asTuple,
        validator=_knownMechanisms,
    )
    minimumTLS: str = field(default="1.3", validator=_knownVersion)
    legacyLogin: bool = False
    defaultService: str | None = field(default=None, validator=_nameOrNone)
    guest: str | None = field(default=None, validator=_nameOrNone)
    graceTime: float = field(default=30, validator=_positive)
    maxAttempts: int = field(default=6, validator=_whole)
    maxUnauthenticatedBytes: int = field(default=65536, validator=_whole)
    maxUnauthenticated: int = field(default=1000, validator=_whole)
    throttle: bool | Throttle = field(default=True, validator=_throttleOrSwitch)
    pingInterval: float | None = field(default=30, validator=_secondsOrNone)
    maxReferences: int = field(default=1024, validator=_whole)
    vouchers: bool = True
    maxVoucherLife: timedelta = field(default=MOST_LIFE, converter=_asLength)
    maxSessions: int | None = field(default=None, validator=_wholeOrNone)
    maxCallsPerSecond: float | None = field(default=None, validator=_positiveOrNone)
    callBurst: int | None = field(default=None, validator=_wholeOrNone)
    maxCallsAtOnce: int | None = field(default=None, validator=_wholeOrNone)
    maxMessageBytes: int | None = field(default=None, validator=_wholeOrNone)

    def __attrs_post_init__(self) -> None:
        if self.callBurst is not None and self.maxCallsPerSecond is None:
            raise ValueError("callBurst needs maxCallsPerSecond.")

    @property
    def limitsCalls(self) -> bool:
        """Return whether there are limits on what clients send after their login."""
        limits = (self.maxCallsPerSecond, self.maxCallsAtOnce, self.maxMessageBytes)
        return any(limit is not None for limit in limits)

    @property
    def wantsCertificates(self) -> bool:
        """Return whether a mechanism is among them that is for clients that show a certificate."""
        terms = Terms()
        return any(
            each.offeredOn(_WITH_CERTIFICATE, terms) and not each.offeredOn(_PLAIN_TLS, terms)
            for each in MECHANISMS
            if each.listedAs.intersection(self.mechanisms)
        )
