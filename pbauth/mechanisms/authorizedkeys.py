"""
The keys that open an account: what a server keeps for `ED25519` and for `EXTERNAL`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from pbauth.names import checkName


@runtime_checkable
class AuthorizedKey(Protocol):
    """
    One key that opens an account; of either kind.

    Attributes:
        mechanism: the name of the mechanism that it is for.
        label: what its owner calls it; it does not count when keys are compared.
    """

    @property
    def mechanism(self) -> str:
        """Return the name of the mechanism that the key is for."""

    @property
    def label(self) -> str:
        """Return what the owner calls the key."""

    def fingerprint(self) -> str:
        """Return the fingerprint, for people: ``SHA256:...``."""

    def line(self) -> str:
        """Return the key as a line of text, with its label."""


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
    _known: frozenset[object] = field(init=False, eq=False, repr=False)

    @_known.default
    def _index(self) -> frozenset[object]:
        return frozenset(self.keys)

    def covers(self, proof: object) -> bool:
        """Return whether a login that was proved by this key is still valid."""
        try:
            return proof in self._known
        except TypeError:
            # It can't be hashed, so it is not a key.
            return False

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
