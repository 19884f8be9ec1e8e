"""The logins that stand on one connection. When none does any more, there is no use for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pbauth.interfaces import IIdentity
from pbauth.perspectives.byname import ByName


class StandingLogin:
    """
    A login that was proved, and that the account still accepts.

    Attributes:
        identity: who the client is.
        proof: what the login rests on, a verifier or a public key; `None` for a mechanism that has
            neither.
        broker: of the connection.
    """

    __slots__ = ("_logins", "broker", "identity", "proof")

    def __init__(self, logins: StandingLogins, identity: IIdentity, proof: object) -> None:
        self.identity = identity
        self.proof = proof
        self.broker = logins.broker
        self._logins = logins

    def end(self, reason: object) -> None:
        """Note that the account no longer accepts it, for whatever reason."""
        self._logins.remove(self)


class StandingLogins:
    """
    The logins of one connection.

    Args:
        broker: of the connection.
        known: where they are looked up when an account changes (`Sessions.logins`).
        noneLeft: called when the last of them has ended.
    """

    __slots__ = ("_known", "_noneLeft", "_standing", "broker")

    def __init__(
        self, broker: Any, known: ByName[StandingLogin], noneLeft: Callable[[], None]
    ) -> None:
        self.broker = broker
        self._known = known
        self._noneLeft = noneLeft
        self._standing: list[StandingLogin] = []

    def __bool__(self) -> bool:
        return bool(self._standing)

    def add(self, identity: IIdentity, proof: object) -> None:
        """
        Add a login; one by the same proof counts once, however often the client logs in.

        Args:
            identity: who the client is.
            proof: what it was proved by.
        """
        for login in self._standing:
            if login.identity.name == identity.name and login.proof == proof:
                return
        login = StandingLogin(self, identity, proof)
        self._standing.append(login)
        self._known.add(identity.name, login)

    def remove(self, login: StandingLogin) -> None:
        """
        Remove a login, which has ended.

        Args:
            login: one of these.
        """
        if login in self._standing:
            self._forget(login)
            if not self._standing:
                self._noneLeft()

    def clear(self) -> None:
        """Forget all of them: the connection is closed."""
        self._noneLeft = _nothing
        while self._standing:
            self._forget(self._standing[-1])

    def _forget(self, login: StandingLogin) -> None:
        self._standing.remove(login)
        self._known.discard(login.identity.name, login)


def _nothing() -> None:
    """Return what is called on a closed connection, which then holds on to nothing."""
