"""
The keys that open an account: what a server keeps for `ED25519` and for `EXTERNAL`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from pbauth._moments import checkMoment
from pbauth.names import checkName


@runtime_checkable
class AuthorizedKey(Protocol):
    """
    One key that opens an account; of either kind.

    Attributes:
        mechanism: the name of the mechanism that it is for.
        label: what its owner calls it; it does not count when keys are compared.
        expires: from when on it opens the account no more; `None`: never. It does not count when
            keys are compared.
    """

    @property
    def mechanism(self) -> str:
        """Return the name of the mechanism that the key is for."""

    @property
    def label(self) -> str:
        """Return what the owner calls the key."""

    @property
    def expires(self) -> datetime | None:
        """Return from when on the key opens the account no more."""

    def expiring(self, expires: datetime | None) -> AuthorizedKey:
        """Return the key with another `expires`."""

    def fingerprint(self) -> str:
        """Return the fingerprint, for people: ``SHA256:...``."""

    def line(self) -> str:
        """Return the key as a line of text, with its label."""


def checkExpiry(value: datetime | None) -> datetime | None:
    """
    Check when a key expires, and return it in UTC; an attrs converter.

    Raises:
        TypeError: it is not a `datetime`.
        ValueError: it has no time zone.
    """
    return checkMoment(value, "expires")


def splitExpiry(line: str) -> tuple[datetime | None, str]:
    """
    Split the option ``expiry-time`` of OpenSSH from the line of a key.

    Args:
        line: ``expiry-time="20261231235959Z"`` and the key; or the key alone.

    Returns:
        When the key expires, or `None`; and the line without the option.

    Raises:
        ValueError: the option is malformed, or its time is not in UTC.
    """
    found = re.match(r'\s*expiry-time="([^"]*)"\s+', line)
    if found is None:
        return None, line
    for form in ("%Y%m%d%H%M%S.%fZ", "%Y%m%d%H%M%SZ", "%Y%m%d%H%MZ", "%Y%m%dZ"):
        with suppress(ValueError):
            moment = datetime.strptime(found[1], form).replace(tzinfo=timezone.utc)
            return moment, line[found.end() :]
    raise ValueError('Write a key\'s expiry-time in UTC: expiry-time="20261231235959Z"')


def joinExpiry(expires: datetime | None, line: str) -> str:
    """
    Return the line of a key with the option ``expiry-time`` in front, as `splitExpiry` reads it.

    Args:
        expires: when the key expires; `None`: never, and there is no option.
        line: of the key.
    """
    if expires is None:
        return line
    text = f"{expires:%Y%m%d%H%M%S.%f}".removesuffix(".000000")
    return f'expiry-time="{text}Z" {line}'


def tidyLabel(value: str) -> str:
    """
    Take away the space around the label of a key, which no line of text keeps; an attrs converter.
    """
    return value.strip() if isinstance(value, str) else value


def checkLabel(instance: Any, attribute: Any, value: str) -> None:
    """
    Check the label of a key, as an attrs validator.

    Raises:
        InvalidName: it breaks the rule of `pbauth.names`.
    """
    if value != "":
        checkName(value, "label of a key")


@frozen
class AuthorizedKeys:
    """
    The keys of an identity for one mechanism.

    Attributes:
        mechanism: the name of the mechanism.
        keys: the keys, in the order in which they were added.
    """

    mechanism: str
    keys: tuple[AuthorizedKey, ...] = ()
    # To look one up costs the same, however many there are.
    _known: dict[object, datetime | None] = field(init=False, eq=False, repr=False)

    @_known.default
    def _index(self) -> dict[object, datetime | None]:
        return {key: key.expires for key in self.keys}

    def covers(self, proof: object) -> bool:
        """Return whether a login that was proved by this key is still valid."""
        try:
            return proof in self._known
        except TypeError:
            # It can't be hashed, so it is not a key.
            return False

    def expiryOf(self, proof: object) -> datetime | None:
        """
        Return when a key expires.

        Args:
            proof: the key, as somebody proved to have it.

        Returns:
            The moment; `None`: never, or it is none of these keys.
        """
        return self._known.get(proof) if self.covers(proof) else None

    def encode(self) -> str:
        """Return the value as text: a line for each key."""
        return "\n".join([f"{self.mechanism}$", *(key.line() for key in self.keys)])

    # A store reads an account each time that somebody claims its name, so that one with very many
    # keys would keep the server busy. They are no secret, and are not changed.
    @classmethod
    @lru_cache(maxsize=64)
    def decode(
        cls, text: str, mechanism: str, readLine: Callable[[str], AuthorizedKey]
    ) -> AuthorizedKeys:
        """
        Read what `encode` wrote.

        Args:
            text: that.
            mechanism: the name of the mechanism.
            readLine: reads one of its keys.

        Returns:
            The keys.

        Raises:
            ValueError: it is not of that form.
        """
        head, *lines = text.split("\n")
        if head != f"{mechanism}$":
            raise ValueError("These are not authorized keys.")
        return cls(mechanism, tuple(readLine(line) for line in lines))
