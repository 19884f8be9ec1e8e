"""
Members, who have an object of their own that the server calls, in a process that may be killed (see
`tests.benchmarks.child`).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.spread import pb

import pbauth
from pbauth import Password
from tests.benchmarks.peers.accounts import PASSWORD, SERVICE, nameOf
from tests.stress.clients import logIn
from tests.stress.server import HOST

FAMILY = "twisted"

#: Whether this version has a client that stays logged in.
CAN_STAY = hasattr(pbauth, "PerspectiveClient")

#: The network of those who log in once: see `tests.stress.resources.addressOf`.
_NETWORK = 22


class Mailbox(pb.Referenceable):
    """What the server calls."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def remote_take(self, number: int) -> None:
        self.received.append(number)


class Member:
    """Clients that log in once, and one that stays."""

    def __init__(self) -> None:
        self._password = Password(PASSWORD)
        self._mailbox = Mailbox()
        self._joined: list[Any] = []
        self._stays: Any = None
        self._attached = self._detached = 0

    async def do_join(self, port: int, first: int, count: int) -> None:
        """Log clients in, once."""
        for number in range(first, first + count):
            self._joined.append(
                await logIn(port, number, _NETWORK, self._password, client=self._mailbox)
            )

    def do_dead(self) -> int:
        """Tell how many of those have noticed that the connection is gone."""
        return sum(bool(each.broker.disconnected) for each in self._joined)

    def do_stay(self, port: int, number: int, pingInterval: float) -> None:
        """Have one client that stays logged in."""
        from twisted.internet import reactor

        # Only of versions that have one.
        made: Any = pbauth
        self._stays = made.PerspectiveClient(
            TCP4ClientEndpoint(IReactorTCP(reactor), HOST, port, timeout=2),
            self._password,
            SERVICE,
            client=self._mailbox,
            username=nameOf(number),
            perspectiveName=nameOf(number),
            timeout=2,
            pingInterval=pingInterval,
            retryPolicy=lambda failures: 0.2,
        )
        self._stays.attached = self._count
        self._stays.detached = self._uncount
        self._stays.startService()

    def _count(self, perspective: Any) -> None:
        self._attached += 1

    def _uncount(self) -> None:
        self._detached += 1

    def do_look(self) -> dict[str, Any]:
        """Tell how often the one that stays was attached and detached, and what it was sent."""
        return {
            "attached": self._attached,
            "detached": self._detached,
            "received": self._mailbox.received,
        }
