"""
The keys that open an account: what a server keeps for `ED25519` and for `EXTERNAL`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen

from pbauth.names import checkName


class AuthorizedKey(Protocol):
    """
    One key that opens an account; of either kind.

    Attributes:
        mechanism: the name of the mechanism that it is for.
        label: what its owner calls it; it does not count when keys are compared.
    """

    @property
    def mechanism(self) -> str: ...

    @property
    def label(self) -> str: ...

    def fingerprint(self) -> str:
        """The fingerprint, for people: ``SHA256:...``."""

    def line(self) -> str:
        """The key as a line of text, with its label."""


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

    def covers(self, proof: object) -> bool:
        """Whether a login that was proved by this key still stands."""
        return proof in self.keys

    def encode(self) -> str:
        """As text: a line for each key."""
        return "\n".join([f"{self.mechanism}$", *(key.line() for key in self.keys)])

    @classmethod
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
