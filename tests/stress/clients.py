"""Who logs in, honestly: in processes of their own (see `tests.benchmarks.child`)."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTCP

from pbauth import Password, connect
from tests.benchmarks.peers.accounts import PASSWORD, SERVICE, nameOf
from tests.benchmarks.peers.ontwisted import workers
from tests.benchmarks.peers.pbclients import closeConnectionOf
from tests.stress.resources import addressOf
from tests.stress.server import HOST

FAMILY = "twisted"

#: How many log in at once, of those who stay.
_MAKERS = 20

#: The networks of those who stay and of those who come and go: see `addressOf`.
_STAYING, _COMING = 16, 17


def logIn(port: int, number: int, network: int, password: Any, **options: Any) -> Any:
    """Log a client in by TCP, from an address of its own."""
    from twisted.internet import reactor

    where = TCP4ClientEndpoint(
        IReactorTCP(reactor), HOST, port, bindAddress=(addressOf(number, network), 0)
    )
    return connect(where, None, nameOf(number), password, SERVICE, **options)


class Crowd:
    """Clients that log in and stay."""

    def __init__(self) -> None:
        self._password = Password(PASSWORD)
        self._held: list[Any] = []

    async def do_hold(self, port: int, upTo: int) -> float:
        """Log clients in until there are so many; gives the seconds that it took."""
        begun = time.perf_counter()
        first = len(self._held)

        async def one(number: int) -> None:
            self._held.append(await logIn(port, first + number, _STAYING, self._password))

        await workers(_MAKERS, upTo - first, one)
        return time.perf_counter() - begun

    async def do_call(self) -> int:
        """Have everybody make a call; gives how many were answered right."""
        names = [await each.callRemote("whoami") for each in self._held]
        return len(set(names))


class Honest:
    """Clients that log in and go, one after the other."""

    def __init__(self) -> None:
        self._password = Password(PASSWORD)

    async def do_logins(
        self, port: int, accounts: int, seconds: float, most: int, among: int = 20
    ) -> dict[str, Any]:
        """
        Log in: connect, log in until the perspective is there, close.

        Args:
            port: where.
            accounts: how many there are; the last ones log in here.
            seconds: for so long.
            most: how many logins at most.
            among: how many accounts take turns.

        Returns:
            The seconds that each login took, and the errors.
        """
        took: list[float] = []
        errors: list[str] = []
        until = time.perf_counter() + seconds
        while len(took) + len(errors) < most and time.perf_counter() < until:
            number = accounts - 1 - (len(took) + len(errors)) % among
            begun = time.perf_counter()
            try:
                perspective = await logIn(port, number, _COMING, self._password)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
                continue
            took.append(time.perf_counter() - begun)
            await closeConnectionOf(perspective)
        return {"took": took, "errors": errors}


class Doomed(Crowd):
    """A crowd in a process that is going to be killed."""

    def do_pid(self) -> int:
        """Tell who is going to be killed."""
        return os.getpid()
