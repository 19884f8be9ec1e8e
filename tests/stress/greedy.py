"""Who has logged in, and asks for far too much (see `tests.benchmarks.child`)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.task import deferLater

from pbauth import LimitExceeded, Password, authIdentity, getObjectAt
from tests.benchmarks.peers.accounts import PASSWORD, SERVICE, nameOf
from tests.stress.clients import logIn
from tests.stress.resources import addressOf
from tests.stress.server import HOST

FAMILY = "twisted"

_NETWORK = 23

#: The ways: the limit, what it is, and what the attack is called.
GREED = {
    "calls": ("maxCallsPerSecond", 100, "calls without end where 100 a second are allowed"),
    "atOnce": ("maxCallsAtOnce", 20, "calls that last where 20 at once are allowed"),
    "bytes": ("maxMessageBytes", 100_000, "messages of 3 MB where 100 kB are allowed"),
    "sessions": ("maxSessions", 5, "sessions without end where 5 are allowed"),
}

#: So many are asked for at once, until the connection ends; and so many times at most.
_BATCH = 100
_MOST_BATCHES = 500


class Greedy:
    """Clients that log in, and then ask until they are disconnected."""

    def __init__(self) -> None:
        self._password = Password(PASSWORD)
        self._answered = self._refused = 0

    async def do_ask(self, port: int, what: str, connections: int) -> dict[str, Any]:
        """
        Ask for too much, on one connection after the other.

        Args:
            port: where.
            what: one of `GREED`.
            connections: how many.

        Returns:
            How many connections there were, and were ended by the server; how many calls were made,
            answered and refused by `LimitExceeded`.
        """
        from twisted.internet import reactor

        self._answered = self._refused = made = ended = 0
        for number in range(connections):
            perspective = await self._logIn(port, number % 20, what)
            for _ in range(_MOST_BATCHES):
                if perspective.broker.disconnected:
                    break
                asked = [self._ask(perspective, what) for _ in range(_BATCH)]
                made += len(asked)
                if what == "atOnce":
                    # Nobody waits for them.
                    await deferLater(reactor, 0.01)  # type: ignore[arg-type]
                else:
                    await gatherResults(asked)
            ended += bool(perspective.broker.disconnected)
            if not perspective.broker.disconnected:
                perspective.broker.transport.abortConnection()
        return {
            "connections": connections,
            "ended": ended,
            "calls": made,
            "answered": self._answered,
            "refused": self._refused,
        }

    async def _logIn(self, port: int, number: int, what: str) -> Any:
        """Log in; give a perspective, or, for sessions, what gives perspectives."""
        if what != "sessions":
            return await logIn(port, number, _NETWORK, self._password)
        from twisted.internet import reactor

        where = TCP4ClientEndpoint(
            IReactorTCP(reactor), HOST, port, bindAddress=(addressOf(number, _NETWORK), 0)
        )
        return await authIdentity(await getObjectAt(where, None), nameOf(number), self._password)

    def _ask(self, perspective: Any, what: str) -> Any:
        if what == "calls":
            asked = perspective.callRemote("whoami")
        elif what == "atOnce":
            asked = perspective.callRemote("wait")
        elif what == "bytes":
            asked = perspective.callRemote("take", ["x" * 50_000] * 60)
        else:
            asked = perspective.callRemote("attach", SERVICE, None, None)
        return asked.addCallbacks(self._count, self._countRefusal)

    def _count(self, answer: Any) -> None:
        self._answered += 1

    def _countRefusal(self, reason: Any) -> None:
        self._refused += bool(reason.check(LimitExceeded))
